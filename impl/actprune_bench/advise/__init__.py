"""Which setting fits a model into a budget of memory."""
