"""Layers that keep their inputs compressed, and the operators that they call."""
