"""CSR as the definition of COO with its columns counted: the definition."""

from torch import Tensor

from actprune_kernels.coo import naive as coo
from actprune_kernels.pointers import colptr_of, columns_of
from actprune_kernels.selection import Selection
from actprune_kernels.sizes import Size, index_dtype


def compress(activation: Tensor, selection: Selection) -> tuple[Tensor, Tensor, Tensor]:
    values, rows, columns = coo.compress(activation, selection)
    colptr = colptr_of(columns, activation.shape[1])
    return values, rows, colptr.to(index_dtype(values.numel()))


def to_dense(values: Tensor, rows: Tensor, colptr: Tensor, shape: Size) -> Tensor:
    return coo.to_dense(values, rows, columns_of(colptr), shape)


def grad_weight(
    values: Tensor, rows: Tensor, colptr: Tensor, grad_output: Tensor, features: int
) -> Tensor:
    return coo.grad_weight(values, rows, columns_of(colptr), grad_output, features)
