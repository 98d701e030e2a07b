"""What a format of ours is compared with: dense, and what other work keeps of an activation.

Each module has compress, grad_weight, to_dense and row_dot between tensors, as the other formats'
folders, with one implementation in plain PyTorch for any device: they work on some rows or columns
at a time, in what the cache holds, and never make the whole matrix. On CUDA they are unmeasured.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actprune_kernels.chunked import slices
from actprune_kernels.selection import cpu, naive
from actprune_kernels.sizes import Size, factor, rows_at_once, wide


def select(
    magnitudes: Tensor, keep: int, scope: str, draw: Tensor | np.random.Generator | None
) -> tuple[Tensor, Tensor | None]:
    """The selection on the device of the magnitudes, as actprune_kernels.selection says."""
    on_device = cpu.select if magnitudes.device.type == "cpu" else naive.select
    return on_device(magnitudes, keep, scope, draw)


Kernel = Callable[..., Tensor]


def by_rows(take: Kernel) -> tuple[Kernel, Kernel, Kernel]:
    """grad_weight, row_dot and to_dense of a store of which some rows at a time are made dense.

    take: gives these rows, of any dtype, from a slice of rows, `features`, and the store by name.
    """

    def grad_weight(*, grad_output: Tensor, features: int, **store: Any) -> Tensor:
        """dYᵀ·X, (out_features, features); sums in fp32 or fp64."""
        acc, dtype = wide(grad_output.dtype), factor(grad_output.dtype)
        out = grad_output.new_zeros(grad_output.shape[1], features, dtype=acc)
        for piece in slices(len(grad_output), rows_at_once(features)):
            factors = grad_output[piece].to(dtype).t(), take(piece, features, **store).to(dtype)
            out = out.addmm_(*factors) if dtype == acc else out.add_(factors[0] @ factors[1])
        return out.to(grad_output.dtype)

    def row_dot(*, other: Tensor, **store: Any) -> Tensor:
        """Of each row the sum of X times `other`, both (rows, features): (rows,), wide."""
        features = other.shape[1]
        out = other.new_empty(len(other), dtype=wide(other.dtype))
        for piece in slices(len(other), rows_at_once(features)):
            product = take(piece, features, **store).to(other.dtype) * other[piece]
            torch.sum(product, 1, dtype=out.dtype, out=out[piece])
        return out

    def to_dense(*, shape: Size, **store: Any) -> Tensor:
        return take(slice(0, shape[0]), shape[1], **store).to(store["values"].dtype)

    return grad_weight, row_dot, to_dense
