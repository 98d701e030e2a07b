"""CSR in fp32 and fp64 on the GPU: compressed by our kernels, multiplied by cuSPARSE."""

from torch import Tensor

from actprune_kernels import cusparse
from actprune_kernels.csr.triton import compress, to_dense

__all__ = ["compress", "grad_weight", "to_dense"]


def grad_weight(
    values: Tensor, rows: Tensor, colptr: Tensor, grad_output: Tensor, features: int
) -> Tensor:
    return cusparse.csr(values, rows, colptr, grad_output)
