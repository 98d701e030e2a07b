"""Measured figures: kernels in one interleaved run, memory in a fresh process."""
