"""Elements and a bit for each place (Back Razor: Jiang et al. 2022).

values (nnz,), column by column of X, and bits (features, ⌈rows / 8⌉) uint8, packed as in
actprune_kernels.quantization.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from actprune_kernels.baselines import select
from actprune_kernels.chunked import in_chunks, slices
from actprune_kernels.quantization.naive import packed, unpacked
from actprune_kernels.selection import Selection, generator, scaled
from actprune_kernels.sizes import Size, factor, rows_at_once, wide


def compress(activation: Tensor, selection: Selection) -> tuple[Tensor, Tensor]:
    rows, features = activation.shape
    keep, _ = selection.kept(rows, features)
    source = None if selection.draw is None else generator(selection.draw)

    def some(piece: slice) -> tuple[Tensor, Tensor]:
        columns = activation[:, piece].t().contiguous()
        magnitudes = selection.weighed(columns.abs().to(wide(activation.dtype)))
        mask, scale = select(magnitudes, keep, selection.scope, source)
        return scaled(columns[mask], scale), packed(mask.to(torch.uint8), 8)

    step = rows_at_once(rows) if selection.scope == "column" else max(1, features)
    return in_chunks(some, features, step)


def grad_weight(values: Tensor, bits: Tensor, grad_output: Tensor, features: int) -> Tensor:
    rows, acc = len(grad_output), factor(grad_output.dtype)
    out = grad_output.new_empty(grad_output.shape[1], features)
    dy = grad_output.to(acc).t()
    for piece, columns in _columns(values, bits, rows):
        out[:, piece] = dy @ columns.to(acc).t()
    return out


def row_dot(values: Tensor, bits: Tensor, other: Tensor) -> Tensor:
    """Of each row the sum of X times `other`, both (rows, features): (rows,), wide."""
    out = other.new_zeros(len(other), dtype=wide(other.dtype))
    for piece, columns in _columns(values, bits, len(other)):
        out += (columns * other[:, piece].t()).sum(0, dtype=out.dtype)
    return out


def _columns(values: Tensor, bits: Tensor, rows: int) -> Iterator[tuple[slice, Tensor]]:
    """Some columns made dense at a time: which, and as rows."""
    start = 0
    for piece in slices(len(bits), rows_at_once(rows)):
        mask = unpacked(bits[piece], 8, rows).bool()
        stop = start + int(mask.sum())
        yield piece, values.new_zeros(mask.shape).masked_scatter_(mask, values[start:stop])
        start = stop


def to_dense(values: Tensor, bits: Tensor, shape: Size) -> Tensor:
    dense = values.new_empty(shape)
    for piece, columns in _columns(values, bits, shape[0]):
        dense[:, piece] = columns.t()
    return dense
