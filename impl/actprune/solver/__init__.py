"""One choice for each of many tensors, within bytes and errors: a 0/1 programme."""
