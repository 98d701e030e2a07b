"""COO in fp32 and fp64 on the GPU: compressed by our kernels, multiplied by cuSPARSE."""

from torch import Tensor

from actprune_kernels.coo.triton import compress, to_dense
from actprune_kernels.cusparse import product

__all__ = ["compress", "grad_weight", "to_dense"]


def grad_weight(
    values: Tensor, rows: Tensor, columns: Tensor, grad_output: Tensor, features: int
) -> Tensor:
    return product("Coo", columns, rows, values, grad_output, features)
