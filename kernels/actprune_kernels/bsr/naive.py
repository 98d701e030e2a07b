"""BSR by padding, masking and one dense product: the definition."""

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels import quantization as codes
from actprune_kernels.quantization import SAME, Coded
from actprune_kernels.quantization import naive as coding
from actprune_kernels.selection import naive as selection
from actprune_kernels.selection import weighed
from actprune_kernels.sizes import blocks_along, index_dtype, wide
from actprune_kernels.sizes import kept as keep_count

_ORDER = {"l2": 2.0, "l1": 1.0, "max": float("inf")}


def compress(
    activation: Tensor,
    bm: int,
    bn: int,
    sparsity: float,
    scope: str,
    norm: str,
    draw: Tensor | None,
    weights: Tensor | None = None,
    kind: str = SAME,
    rounding: Tensor | None = None,
) -> tuple[Tensor, ...]:
    rows, features = activation.shape
    padded = activation.new_zeros(rows + -rows % bm, features + -features % bn)
    padded[:rows, :features] = activation  # an empty one torch 2.9 does not pad
    grid = blocks_along(rows, bm), blocks_along(features, bn)
    blocks = padded.view(grid[0], bm, grid[1], bn).permute(2, 0, 1, 3)  # columns, rows, bm, bn
    norms = torch.linalg.vector_norm(blocks.to(wide(activation.dtype)), _ORDER[norm], dim=(2, 3))
    keep, nnz = keep_count(*grid, sparsity, scope)
    mask, scale = selection.select(weighed(norms, weights, bm), keep, scope, draw)
    values = blocks[mask]
    if scale is not None:
        values = (values * scale[:, None, None]).to(activation.dtype)
    block_rows = mask.nonzero()[:, 1].to(index_dtype(grid[0]))
    colptr = F.pad(mask.sum(1).cumsum(0), (1, 0)).to(index_dtype(nnz))
    if kind == SAME:
        return values, block_rows, colptr
    return *coding.encode(values.flatten(1), kind, rounding), block_rows, colptr


def to_dense(
    kept: Tensor | Coded, block_rows: Tensor, colptr: Tensor, rows: int, features: int
) -> Tensor:
    values = codes.values(kept)
    _, bm, bn = values.shape
    grid = blocks_along(rows, bm), colptr.numel() - 1
    column = torch.repeat_interleave(
        torch.arange(grid[1], device=values.device), colptr.long().diff()
    )
    blocks = values.new_zeros(grid[0], grid[1], bm, bn)
    blocks[block_rows.long(), column] = values
    padded = blocks.transpose(1, 2).reshape(grid[0] * bm, grid[1] * bn)
    return padded[:rows, :features].contiguous()


def grad_weight(
    kept: Tensor | Coded,
    block_rows: Tensor,
    colptr: Tensor,
    grad_output: Tensor,
    features: int,
    scope: str,
) -> Tensor:
    dense = to_dense(kept, block_rows, colptr, grad_output.shape[0], features)
    acc = wide(grad_output.dtype)
    return (grad_output.to(acc).t() @ dense.to(acc)).to(grad_output.dtype)
