"""Whole rows, kept or sampled: column-row sampling of dYᵀ·X (WTA-CRS: Liu et al. 2023, arXiv
2305.15265).

values (keep, features) and index (keep,), ascending.
"""

import torch
from torch import Tensor

from actprune_kernels.baselines import select
from actprune_kernels.chunked import in_chunks
from actprune_kernels.selection import Selection, scaled
from actprune_kernels.sizes import Size, factor, index_dtype, rows_at_once, wide


def compress(activation: Tensor, selection: Selection) -> tuple[Tensor, Tensor]:
    rows = len(activation)
    dtype = wide(activation.dtype)

    def some(piece: slice) -> tuple[Tensor]:  # in half precision, the sum makes a wide copy
        return (torch.linalg.vector_norm(activation[piece], dim=1, dtype=dtype),)

    (norms,) = in_chunks(some, rows, rows_at_once(activation.shape[1]))
    norms = selection.weighed(norms[None].abs())  # NaN of one sign
    keep, _ = selection.kept(rows, 1)
    mask, scale = select(norms, keep, selection.scope, selection.draw)
    index = mask.nonzero()[:, 1]
    return scaled(activation.index_select(0, index), scale), index.to(index_dtype(rows))


def grad_weight(values: Tensor, index: Tensor, grad_output: Tensor, features: int) -> Tensor:
    acc = factor(grad_output.dtype)
    picked = grad_output.index_select(0, index.long()).to(acc)
    return (picked.t() @ values.to(acc)).to(grad_output.dtype)


def row_dot(values: Tensor, index: Tensor, other: Tensor) -> Tensor:
    """Of each row the sum of X times `other`, both (rows, features): (rows,), wide."""
    out = other.new_zeros(len(other), dtype=wide(other.dtype))
    step = rows_at_once(other.shape[1])
    pieces = (torch.split(part, step) for part in (values, index.long()))
    for some, places in zip(*pieces, strict=True):
        sums = (some * other.index_select(0, places)).sum(1, dtype=out.dtype)
        out.index_copy_(0, places, sums)
    return out


def to_dense(values: Tensor, index: Tensor, shape: Size) -> Tensor:
    return values.new_zeros(shape).index_copy_(0, index.long(), values)
