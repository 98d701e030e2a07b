"""Measurements of two commits in turns, and of many by bisection."""
