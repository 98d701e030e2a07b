"""Where results come from: the code, the machine and the libraries of a run."""
