"""Measurements of time, memory and correctness."""
