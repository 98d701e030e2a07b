"""Whole rows, kept or sampled: column-row sampling of dYᵀ·X (WTA-CRS: Liu et al. 2023, arXiv
2305.15265).

values (keep, features) and index (keep,), ascending.
"""

import torch
from torch import Tensor

from actprune_kernels.baselines import selection
from actprune_kernels.chunked import in_pieces
from actprune_kernels.selection import weighed
from actprune_kernels.sizes import factor, index_dtype, keep_count, rows_at_once, wide


def compress(
    activation: Tensor, sparsity: float, draw: Tensor | None, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    rows = len(activation)
    dtype = wide(activation.dtype)

    def some(piece: slice) -> tuple[Tensor]:  # in half precision, the sum makes a wide copy
        return (torch.linalg.vector_norm(activation[piece], dim=1, dtype=dtype),)

    (norms,) = in_pieces(some, rows, rows_at_once(activation.shape[1]))
    norms = weighed(norms[None].abs(), weights)  # NaN of one sign
    keep = keep_count(rows, sparsity)
    mask, scale = selection(activation.device).select(norms, keep, "column", draw)
    index = mask.nonzero()[:, 1]
    values = activation.index_select(0, index)
    if scale is not None:
        values = (values * scale[:, None]).to(activation.dtype)
    return values, index.to(index_dtype(rows))


def grad_weight(values: Tensor, index: Tensor, grad_output: Tensor) -> Tensor:
    acc = factor(grad_output.dtype)
    picked = grad_output.index_select(0, index.long()).to(acc)
    return (picked.t() @ values.to(acc)).to(grad_output.dtype)


def row_dot(values: Tensor, index: Tensor, other: Tensor) -> Tensor:
    """Of each row the sum of X times `other`, both (rows, features): (rows,), wide."""
    out = other.new_zeros(len(other), dtype=wide(other.dtype))
    step = rows_at_once(other.shape[1])
    for some, places in zip(
        torch.split(values, step), torch.split(index.long(), step), strict=True
    ):
        sums = (some * other.index_select(0, places)).sum(1, dtype=out.dtype)
        out.index_copy_(0, places, sums)
    return out


def to_dense(values: Tensor, index: Tensor, rows: int) -> Tensor:
    dense = values.new_zeros(rows, values.shape[1])
    return dense.index_copy_(0, index.long(), values)
