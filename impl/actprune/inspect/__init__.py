"""What a model keeps, and what pruning does to its gradients."""
