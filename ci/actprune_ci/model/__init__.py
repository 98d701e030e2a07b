"""What the harness knows of any tool's output."""
