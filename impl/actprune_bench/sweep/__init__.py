"""Sweeps: a grid of training runs, each a fresh process with limits, that loses nothing."""
