"""BSR on the CPU: torch operators in the access pattern that reaches the memory's limit."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels import quantization
from actprune_kernels.bsr.naive import to_dense
from actprune_kernels.chunked import in_chunks, slices
from actprune_kernels.quantization import SAME, Kept, Quantized
from actprune_kernels.quantization.cpu import encode_each
from actprune_kernels.selection import Selection
from actprune_kernels.selection.cpu import select
from actprune_kernels.sizes import Size, blocks_along, factor, index_dtype, rows_at_once, wide

__all__ = ["block_norms", "compress", "gather_blocks", "grad_weight", "row_dot", "to_dense"]
GATHER_BYTES = 4 * 2**20
"""Columns that keep equally much are multiplied some at a time, a GEMM to a thread, as long as the
gathered rows stay in the cache: 20 % faster than one after the other (docs/measuring.md)."""


def compress(
    activation: Tensor, block: Size, norm: str, selection: Selection, kind: str, draw: Tensor | None
) -> tuple[Tensor, ...]:
    activation, (bm, bn) = activation.contiguous(), block
    grid = blocks_along(len(activation), bm), blocks_along(activation.shape[1], bn)
    keep, nnz = selection.kept(*grid)
    norms = block_norms(activation, bm, bn, norm).t().contiguous()  # block columns, block rows
    mask, scale = select(selection.weighed(norms, bm), keep, selection.scope, selection.draw)
    column, block_rows = mask.nonzero(as_tuple=True)
    colptr = F.pad(mask.sum(1).cumsum(0), (1, 0))

    def gathered(piece: slice) -> Tensor:
        values = gather_blocks(activation, block_rows[piece], column[piece], bm, bn)
        if scale is not None:
            values.mul_(scale[piece].to(wide(values.dtype))[:, None, None])
        return values

    if kind == SAME:
        parts: quantization.Parts = (gathered(slice(None)),)
    else:
        parts = quantization.empty(activation, nnz, bm * bn, kind)
        encode_each(lambda piece: gathered(piece).flatten(1), parts, kind, draw)
    return *parts, block_rows.to(index_dtype(grid[0])), colptr.to(index_dtype(nnz))


def block_norms(activation: Tensor, bm: int, bn: int, norm: str) -> Tensor:
    """Norm of every block, (block rows, block columns), fp32 or fp64.

    In two steps, within a row over the block's width and then over the block's height: each is a
    reduction over contiguous memory, ten times faster than one over both.
    """
    rows, features = activation.shape
    full = features - features % bn
    parts = [_row_norms(activation[:, :full].view(rows, -1, bn), norm)] if full else []
    if full < features:
        parts.append(_row_norms(activation[:, full:].unsqueeze(1), norm))
    norms = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
    if bm > 1:
        padded = F.pad(norms, (0, 0, 0, -rows % bm))
        tall = padded.view(-1, bm, norms.shape[1])  # block rows, bm, block columns
        if norm == "l2":
            norms = torch.linalg.vector_norm(tall, dim=1)
        else:
            norms = tall.sum(1) if norm == "l1" else tall.amax(1)
    return norms.abs_()  # clears the sign that a NaN may carry, which would rank it last


def _row_norms(pieces: Tensor, norm: str) -> Tensor:
    """(rows, columns, width) to (rows, columns), some rows at a time: in half precision the sum
    itself makes a copy that is twice as large."""
    step = rows_at_once(pieces.shape[1] * pieces.shape[2])
    return in_chunks(lambda piece: (_norms(pieces[piece], norm),), len(pieces), step)[0]


def _norms(pieces: Tensor, norm: str) -> Tensor:
    dtype = wide(pieces.dtype)
    if pieces.shape[2] == 1:
        return pieces.squeeze(2).abs().to(dtype)
    if norm == "max":
        return torch.maximum(pieces.amax(2), -pieces.amin(2)).to(dtype)
    if norm == "l1":
        return pieces.abs().sum(2, dtype=dtype)
    norms: Tensor = torch.linalg.vector_norm(pieces, dim=2, dtype=dtype)
    return norms


def gather_blocks(
    activation: Tensor, block_rows: Tensor, column: Tensor, bm: int, bn: int
) -> Tensor:
    """Copy the named blocks, (nnz, bm, bn), zeros beyond the edges."""
    rows, features = activation.shape
    ragged = features % bn
    inside = column.numel() - int((column == features // bn).sum()) if ragged else column.numel()
    values = activation.new_empty(column.numel(), bm, bn)
    row = block_rows[:, None] * bm + torch.arange(bm)  # nnz, bm
    row.clamp_(max=rows - 1)
    if inside:
        # Windows of bn elements that may start anywhere: no padding, no copy of X.
        windows = activation.as_strided((rows * features - bn + 1, bn), (1, 1))
        start = (row[:inside] * features + column[:inside, None] * bn).view(-1)
        torch.index_select(windows, 0, start, out=values[:inside].view(-1, bn))
    if inside < column.numel():
        edge = activation[:, features - ragged :]
        values[inside:, :, ragged:] = 0
        values[inside:, :, :ragged] = edge[row[inside:].reshape(-1)].view(-1, bm, ragged)
    if rows % bm:
        values[block_rows == rows // bm, rows % bm :] = 0
    return values


def row_dot(values: Kept, block_rows: Tensor, colptr: Tensor, other: Tensor) -> Tensor:
    """Of each row the sum of X times `other`, both (rows, features): (rows,), wide.

    Some blocks at a time with their like of `other`; what each adds to its rows is added in the
    order of storage.
    """
    count, bm, bn = values.shape
    out = other.new_zeros(len(other), dtype=wide(other.dtype))
    other = other.contiguous()
    for piece in slices(count, rows_at_once(bm * max(bn, 4))):  # int64 to a row
        places = torch.arange(piece.start, piece.stop, dtype=colptr.dtype)
        column = torch.searchsorted(colptr, places, right=True) - 1
        rows = block_rows[piece].long()
        products = gather_blocks(other, rows, column, bm, bn).mul_(values[piece].to(other.dtype))
        row = (rows[:, None] * bm + torch.arange(bm)).clamp_(max=len(other) - 1)
        out.index_add_(0, row.view(-1), products.sum(2, dtype=out.dtype).view(-1))
    return out


def grad_weight(
    values: Kept, block_rows: Tensor, colptr: Tensor, grad_output: Tensor, features: int, scope: str
) -> Tensor:
    """Gather the dY rows of some block columns, then one GEMM for each of these columns."""
    count, bm, bn = values.shape
    rows, out_features = grad_output.shape
    acc = factor(grad_output.dtype)
    # Transposed: (block columns, bn, out_features), the order in which the GEMMs write.
    result = grad_output.new_zeros(colptr.numel() - 1, bn, out_features, dtype=acc)
    row = (block_rows.long()[:, None] * bm + torch.arange(bm)).clamp_(max=rows - 1).view(-1)
    bounds = [bm * start for start in colptr.tolist()]  # where each column's rows start
    longest = max(stop - start for start, stop in pairwise(bounds))
    step, limit = 1, count
    if scope == "column":
        column_bytes = longest * out_features * grad_output.element_size()
        step = max(torch.get_num_threads(), GATHER_BYTES // column_bytes)
    if isinstance(values, Quantized):  # nor is more than this decoded at once
        step, limit = min(step, rows_at_once(longest * bn)), rows_at_once(bm * bn)
    gathered = grad_output.new_empty(min(step * longest, len(row)), out_features)
    for column in range(0, len(bounds) - 1, step):
        start, stop = bounds[column], bounds[min(column + step, len(bounds) - 1)]
        if start == stop:
            continue
        picked = torch.index_select(grad_output, 0, row[start:stop], out=gathered[: stop - start])
        target, piece = result[column : column + step], slice(start // bm, stop // bm)
        if step == 1 and stop - start > limit * bm:
            _multiply_long(values, piece, picked, limit, target[0])
            continue
        shape = (len(target), (stop - start) // len(target), -1)  # columns, rows kept, width
        blocks = values[piece].to(acc).view(shape)
        torch.bmm(blocks.transpose(1, 2), picked.to(acc).view(shape), out=target)
    flat = result.view(-1, out_features)[:features]
    return flat.to(grad_output.dtype).t().contiguous()


def _multiply_long(values: Kept, column: slice, picked: Tensor, limit: int, out: Tensor) -> None:
    """One column, `limit` blocks at a time. picked: its rows of dY; out (bn, out_features)."""
    _, bm, bn = values.shape
    total = out.new_zeros(out.shape, dtype=wide(out.dtype))
    for first in range(column.start, column.stop, limit):
        blocks = values[first : min(first + limit, column.stop)].to(out.dtype).view(-1, bn)
        rows = picked[(first - column.start) * bm :][: len(blocks)].to(out.dtype)
        total.add_(blocks.t() @ rows)
    out.copy_(total)
