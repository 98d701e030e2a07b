"""What other work keeps of an activation, in plain PyTorch on any device.

Each module has compress, grad_weight and to_dense between tensors, as the other formats' folders.
There is one implementation of each: products work on some rows or columns at a time, in what the
cache holds, and never make the whole matrix. On CUDA they are unmeasured.
"""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from actprune_kernels.sizes import factor, wide


def selection(device: torch.device) -> ModuleType:
    """Selects on `device`, by the interface of actprune_kernels.selection."""
    name = "cpu" if device.type == "cpu" else "naive"
    return import_module(f"actprune_kernels.selection.{name}")


def summed(
    take: Callable[[slice], Tensor], grad_output: Tensor, features: int, step: int
) -> Tensor:
    """dYᵀ·X, (out_features, features), X given for slices of `step` rows; sums in fp32 or fp64."""
    acc, dtype = wide(grad_output.dtype), factor(grad_output.dtype)
    out = grad_output.new_zeros(grad_output.shape[1], features, dtype=acc)
    for start in range(0, len(grad_output), step):
        piece = slice(start, start + step)
        factors = grad_output[piece].to(dtype).t(), take(piece).to(dtype)
        out = out.addmm_(*factors) if dtype == acc else out.add_(factors[0] @ factors[1])
    return out.to(grad_output.dtype)
