"""What all but the kernels share: errors, files, processes, the schema of results; no torch."""
