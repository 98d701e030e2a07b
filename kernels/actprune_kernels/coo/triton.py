"""COO on the GPU: the sorted columns give pointers, and CSR does the product."""

import torch
from torch import Tensor

from actprune_kernels.bsr.triton import columns_of
from actprune_kernels.csr import triton as csr
from actprune_kernels.sizes import index_dtype

__all__ = ["compress", "grad_weight", "pointers", "to_dense"]


def compress(
    activation: Tensor,
    sparsity: float,
    scope: str,
    draw: Tensor | None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    features = activation.shape[1]
    values, rows, colptr = csr.compress(activation, sparsity, scope, draw, weights)
    return values, rows, columns_of(colptr, values.numel()).to(index_dtype(features))


def grad_weight(
    values: Tensor, rows: Tensor, columns: Tensor, grad_output: Tensor, features: int
) -> Tensor:
    return csr.grad_weight(values, rows, pointers(columns, features), grad_output)


def to_dense(values: Tensor, rows: Tensor, columns: Tensor, height: int, features: int) -> Tensor:
    return csr.to_dense(values, rows, pointers(columns, features), height)


def pointers(columns: Tensor, features: int) -> Tensor:
    """(features + 1,): where each column starts among the sorted `columns`; waits for nothing."""
    columns = columns if columns.dtype in (torch.int32, torch.int64) else columns.int()
    edges = torch.arange(features + 1, device=columns.device, dtype=columns.dtype)
    return torch.searchsorted(columns, edges)
