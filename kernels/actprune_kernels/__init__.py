"""Kernels of activation pruning: raw tensors in, raw tensors out; knows no nn.Module."""
