"""CSR on the CPU.

The product is a weighted sum of dY rows per column of X, which is what `embedding_bag` computes:
on two cores it ran in half the time of MKL's sparse product (docs/measuring.md).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.chunked import in_pieces
from actprune_kernels.csr.naive import to_dense
from actprune_kernels.selection import cpu as selection
from actprune_kernels.selection import generator, weighed
from actprune_kernels.sizes import at_once, index_dtype, kept, wide

__all__ = ["compress", "grad_weight", "row_dot", "to_dense"]


def compress(
    activation: Tensor,
    sparsity: float,
    scope: str,
    draw: Tensor | None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Some columns at a time where each keeps equally many: transposed, with magnitudes and keys,
    all of X would be held seven times."""
    height, features = activation.shape
    keep, nnz = kept(height, features, sparsity, scope)
    source = None if draw is None else generator(draw)

    def some(piece: slice) -> tuple[Tensor, Tensor, Tensor]:
        columns = activation[:, piece].t().contiguous()
        magnitudes = columns.abs()
        if draw is not None:
            magnitudes = magnitudes.to(wide(activation.dtype))
        mask, scale = selection.select(weighed(magnitudes, weights), keep, scope, source)
        position = mask.view(-1).nonzero().squeeze(1)
        values = columns.view(-1).index_select(0, position)
        if scale is not None:
            values.mul_(scale)
        rows = position.remainder_(max(height, 1)).to(index_dtype(height))
        return values, rows, mask.sum(1)

    step = max(1, at_once() // max(1, height)) if scope == "column" else max(1, features)
    values, rows, counts = in_pieces(some, features, step)
    return values, rows, F.pad(counts.cumsum(0), (1, 0)).to(index_dtype(nnz))


def row_dot(take: Callable[[slice], Tensor], rows: Tensor, colptr: Tensor, other: Tensor) -> Tensor:
    """Of each row the sum of X times `other`, both (rows, features): (rows,), wide.

    take: values for a slice. Some of them at a time are added to their rows, in storage order.
    """
    out = other.new_zeros(len(other), dtype=wide(other.dtype))
    flat, features = other.reshape(-1), other.shape[1]
    step = max(1, at_once() // 4)  # an index is int64, and there are two
    for start in range(0, len(rows), step):
        piece = slice(start, min(start + step, len(rows)))
        places = torch.arange(piece.start, piece.stop, dtype=colptr.dtype)
        index = torch.searchsorted(colptr, places, right=True).sub_(1)
        row = rows[piece].to(torch.int64)
        index.add_(row, alpha=features)
        products = flat.index_select(0, index).mul_(take(piece))
        out.index_add_(0, row, products.to(out.dtype))
    return out


def grad_weight(values: Tensor, rows: Tensor, colptr: Tensor, grad_output: Tensor) -> Tensor:
    """Accumulates in fp32 in half precision."""
    features, out_features = colptr.numel() - 1, grad_output.shape[1]
    if not values.numel() or not out_features:
        return grad_output.new_zeros(out_features, features)
    acc = wide(grad_output.dtype)
    index = torch.int32 if values.numel() < 2**31 else torch.int64
    summed = F.embedding_bag(
        rows.to(index),
        grad_output.to(acc),
        colptr.to(index),
        mode="sum",
        per_sample_weights=values.to(acc),
        include_last_offset=True,
    )  # features, out_features
    return summed.to(grad_output.dtype).t().contiguous()
