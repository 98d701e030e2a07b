"""What is done to a model so that it keeps less: formats and strategies, in one text."""
