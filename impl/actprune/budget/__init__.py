"""A format for each layer within a budget of bytes."""
