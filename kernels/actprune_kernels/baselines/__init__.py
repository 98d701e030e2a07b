"""What a format of ours is compared with: dense, and what other work keeps of an activation.

Each module has compress, grad_weight, to_dense and row_dot between tensors, as the other formats'
folders, with one implementation in plain PyTorch for any device: they work on some rows or columns
at a time, in what the cache holds, and never make the whole matrix. On CUDA they are unmeasured.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from actprune_kernels.chunked import slices
from actprune_kernels.selection import cpu, naive
from actprune_kernels.sizes import factor, rows_at_once, wide


def select(
    magnitudes: Tensor, keep: int, scope: str, draw: Tensor | np.random.Generator | None
) -> tuple[Tensor, Tensor | None]:
    """The selection on the device of the magnitudes, as actprune_kernels.selection says."""
    on_device = cpu.select if magnitudes.device.type == "cpu" else naive.select
    return on_device(magnitudes, keep, scope, draw)


def summed(take: Callable[[slice], Tensor], grad_output: Tensor, features: int) -> Tensor:
    """dYᵀ·X, (out_features, features); sums in fp32 or fp64. take: X for a slice of rows."""
    acc, dtype = wide(grad_output.dtype), factor(grad_output.dtype)
    out = grad_output.new_zeros(grad_output.shape[1], features, dtype=acc)
    for piece in slices(len(grad_output), rows_at_once(features)):
        factors = grad_output[piece].to(dtype).t(), take(piece).to(dtype)
        out = out.addmm_(*factors) if dtype == acc else out.add_(factors[0] @ factors[1])
    return out.to(grad_output.dtype)


def dotted(take: Callable[[slice], Tensor], other: Tensor) -> Tensor:
    """Of each row the sum of X times `other`, both (rows, features): (rows,), wide; as `summed`."""
    out = other.new_empty(len(other), dtype=wide(other.dtype))
    for piece in slices(len(other), rows_at_once(other.shape[1])):
        torch.sum(take(piece).to(other.dtype) * other[piece], 1, dtype=out.dtype, out=out[piece])
    return out
