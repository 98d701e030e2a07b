"""Under torch.compile: what of each tensor is kept, recomputed, compressed or offloaded."""
