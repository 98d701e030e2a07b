"""CSR on the CPU.

The product is a weighted sum of dY rows per column of X, which is what `embedding_bag` computes:
on two cores it ran in half the time of MKL's sparse product (docs/measuring.md).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.chunked import in_chunks, slices
from actprune_kernels.csr.naive import to_dense
from actprune_kernels.quantization import Quantized
from actprune_kernels.selection import Selection, generator
from actprune_kernels.selection.cpu import select
from actprune_kernels.sizes import index_dtype, rows_at_once, wide

__all__ = ["compress", "grad_weight", "row_dot", "to_dense"]


def compress(activation: Tensor, selection: Selection) -> tuple[Tensor, Tensor, Tensor]:
    """Some columns at a time where each keeps equally many: transposed, with magnitudes and keys,
    all of X would be held seven times."""
    height, features = activation.shape
    keep, nnz = selection.kept(height, features)
    source = None if selection.draw is None else generator(selection.draw)

    def some(piece: slice) -> tuple[Tensor, Tensor, Tensor]:
        columns = activation[:, piece].t().contiguous()
        magnitudes = columns.abs()
        if source is not None:
            magnitudes = magnitudes.to(wide(activation.dtype))
        mask, scale = select(selection.weighed(magnitudes), keep, selection.scope, source)
        position = mask.view(-1).nonzero().squeeze(1)
        values = columns.view(-1).index_select(0, position)
        if scale is not None:
            values.mul_(scale)
        rows = position.remainder_(max(height, 1)).to(index_dtype(height))
        return values, rows, mask.sum(1)

    step = rows_at_once(height) if selection.scope == "column" else max(1, features)
    values, rows, counts = in_chunks(some, features, step)
    return values, rows, F.pad(counts.cumsum(0), (1, 0)).to(index_dtype(nnz))


def row_dot(values: Tensor | Quantized, rows: Tensor, colptr: Tensor, other: Tensor) -> Tensor:
    """Of each row the sum of X times `other`, both (rows, features): (rows,), wide.

    Some values at a time are decoded, where they are quantized, and added to their rows, in the
    order of storage.
    """
    out = other.new_zeros(len(other), dtype=wide(other.dtype))
    flat, features = other.reshape(-1), other.shape[1]
    for piece in slices(len(rows), rows_at_once(4)):  # an index is int64, and there are two
        places = torch.arange(piece.start, piece.stop, dtype=colptr.dtype)
        index = torch.searchsorted(colptr, places, right=True).sub_(1)
        row = rows[piece].to(torch.int64)
        index.add_(row, alpha=features)
        some = values.flat(piece) if isinstance(values, Quantized) else values[piece]
        products = flat.index_select(0, index).mul_(some.to(other.dtype))
        out.index_add_(0, row, products.to(out.dtype))
    return out


def grad_weight(
    values: Tensor, rows: Tensor, colptr: Tensor, grad_output: Tensor, features: int
) -> Tensor:
    """Accumulates in fp32 in half precision."""
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
