"""COO on the CPU: the sorted columns are counted to pointers, and CSR does the product."""

import torch
from torch import Tensor

from actprune_kernels.coo.naive import to_dense
from actprune_kernels.csr import cpu as csr
from actprune_kernels.pointers import colptr_of
from actprune_kernels.selection import Selection
from actprune_kernels.sizes import index_dtype

__all__ = ["compress", "grad_weight", "row_dot", "to_dense"]


def compress(activation: Tensor, selection: Selection) -> tuple[Tensor, Tensor, Tensor]:
    features = activation.shape[1]
    values, rows, colptr = csr.compress(activation, selection)
    column = torch.arange(features, dtype=index_dtype(features))  # not int64, for nnz of them
    return values, rows, torch.repeat_interleave(column, colptr.long().diff())


def grad_weight(
    values: Tensor, rows: Tensor, columns: Tensor, grad_output: Tensor, features: int
) -> Tensor:
    return csr.grad_weight(values, rows, colptr_of(columns, features), grad_output, features)


def row_dot(values: Tensor, rows: Tensor, columns: Tensor, other: Tensor) -> Tensor:
    return csr.row_dot(values, rows, colptr_of(columns, other.shape[1]), other)
