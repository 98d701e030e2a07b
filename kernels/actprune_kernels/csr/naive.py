"""CSR by masking and one dense product: the definition."""

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.selection import naive as selection
from actprune_kernels.selection import weighed
from actprune_kernels.sizes import index_dtype, kept, wide


def compress(
    activation: Tensor,
    sparsity: float,
    scope: str,
    draw: Tensor | None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    height, features = activation.shape
    keep, nnz = kept(height, features, sparsity, scope)
    columns = activation.t()
    magnitudes = weighed(columns.abs().to(wide(activation.dtype)), weights)
    mask, scale = selection.select(magnitudes, keep, scope, draw)
    values = columns[mask]
    if scale is not None:
        values = (values * scale).to(activation.dtype)
    colptr = F.pad(mask.sum(1).cumsum(0), (1, 0))
    return values, mask.nonzero()[:, 1].to(index_dtype(height)), colptr.to(index_dtype(nnz))


def to_dense(values: Tensor, rows: Tensor, colptr: Tensor, height: int) -> Tensor:
    features = colptr.numel() - 1
    column = torch.repeat_interleave(
        torch.arange(features, device=values.device), colptr.long().diff()
    )
    dense = values.new_zeros(height, features)
    dense[rows.long(), column] = values
    return dense


def grad_weight(values: Tensor, rows: Tensor, colptr: Tensor, grad_output: Tensor) -> Tensor:
    acc = wide(grad_output.dtype)
    dense = to_dense(values, rows, colptr, grad_output.shape[0]).to(acc)
    return (grad_output.to(acc).t() @ dense).to(grad_output.dtype)
