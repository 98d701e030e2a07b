"""COO on the GPU: the sorted columns give pointers, and CSR does the product."""

from torch import Tensor

from actprune_kernels.csr import triton as csr
from actprune_kernels.pointers import colptr_of, search_columns
from actprune_kernels.selection import Selection
from actprune_kernels.sizes import Size, index_dtype


def compress(activation: Tensor, selection: Selection) -> tuple[Tensor, Tensor, Tensor]:
    values, rows, colptr = csr.compress(activation, selection)
    columns = search_columns(colptr, values.numel())
    return values, rows, columns.to(index_dtype(activation.shape[1]))


def grad_weight(
    values: Tensor, rows: Tensor, columns: Tensor, grad_output: Tensor, features: int
) -> Tensor:
    return csr.grad_weight(values, rows, colptr_of(columns, features), grad_output, features)


def to_dense(values: Tensor, rows: Tensor, columns: Tensor, shape: Size) -> Tensor:
    return csr.to_dense(values, rows, colptr_of(columns, shape[1]), shape)
