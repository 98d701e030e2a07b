"""BSR by padding, masking and one dense product: the definition."""

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.pointers import columns_of
from actprune_kernels.quantization import SAME, Kept, dequantized
from actprune_kernels.quantization.naive import encode
from actprune_kernels.selection import Selection, scaled
from actprune_kernels.selection.naive import select
from actprune_kernels.sizes import Size, blocks_along, index_dtype, wide

_ORDER = {"l2": 2.0, "l1": 1.0, "max": float("inf")}


def compress(
    activation: Tensor, block: Size, norm: str, selection: Selection, kind: str, draw: Tensor | None
) -> tuple[Tensor, ...]:
    (bm, bn), (rows, features) = block, activation.shape
    padded = F.pad(activation, (0, -features % bn, 0, -rows % bm))
    grid = blocks_along(rows, bm), blocks_along(features, bn)
    blocks = padded.view(grid[0], bm, grid[1], bn).permute(2, 0, 1, 3)  # columns, rows, bm, bn
    norms = torch.linalg.vector_norm(blocks.to(wide(activation.dtype)), _ORDER[norm], dim=(2, 3))
    keep, nnz = selection.kept(*grid)
    mask, scale = select(selection.weighed(norms, bm), keep, selection.scope, selection.draw)
    values = scaled(blocks[mask], scale)
    block_rows = mask.nonzero()[:, 1].to(index_dtype(grid[0]))
    colptr = F.pad(mask.sum(1).cumsum(0), (1, 0)).to(index_dtype(nnz))
    parts = (values,) if kind == SAME else encode(values.flatten(1), kind, draw)
    return *parts, block_rows, colptr


def to_dense(values: Kept, block_rows: Tensor, colptr: Tensor, shape: Size) -> Tensor:
    values, (rows, features) = dequantized(values), shape
    _, bm, bn = values.shape
    grid = blocks_along(rows, bm), colptr.numel() - 1
    padded = values.new_zeros(grid[0], bm, grid[1], bn)
    padded[block_rows.long(), :, columns_of(colptr)] = values
    return padded.view(grid[0] * bm, grid[1] * bn)[:rows, :features].contiguous()


def grad_weight(
    values: Kept, block_rows: Tensor, colptr: Tensor, grad_output: Tensor, features: int, scope: str
) -> Tensor:
    dense = to_dense(values, block_rows, colptr, (len(grad_output), features))
    acc = wide(grad_output.dtype)
    return (grad_output.to(acc).t() @ dense.to(acc)).to(grad_output.dtype)
