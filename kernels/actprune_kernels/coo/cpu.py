"""COO on the CPU: the sorted columns are counted to pointers, and CSR does the product."""

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.coo.naive import to_dense
from actprune_kernels.csr import cpu as csr
from actprune_kernels.sizes import index_dtype

__all__ = ["compress", "grad_weight", "to_dense"]


def compress(
    activation: Tensor,
    sparsity: float,
    scope: str,
    draw: Tensor | None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    features = activation.shape[1]
    values, rows, colptr = csr.compress(activation, sparsity, scope, draw, weights)
    column = torch.arange(features, dtype=index_dtype(features))
    return values, rows, torch.repeat_interleave(column, colptr.long().diff())


def grad_weight(
    values: Tensor, rows: Tensor, columns: Tensor, grad_output: Tensor, features: int
) -> Tensor:
    counts = torch.bincount(columns, minlength=features)
    return csr.grad_weight(values, rows, F.pad(counts.cumsum(0), (1, 0)), grad_output)
