"""COO: single elements, each with its row and column."""

from dataclasses import dataclass

import torch
from torch import Tensor

from actprune.formats.base import PruningFormat
from actprune.formats.spec import write_spec
from actprune_kernels.backends import kernels, resolve
from actprune_kernels.csr import cpu
from actprune_kernels.sizes import index_dtype, kept


@dataclass(frozen=True, kw_only=True)
class Coo(PruningFormat):
    """Prunes elements; 4 + 2 + 2 bytes for each that stays (fp32, up to 32,767 each way)."""

    @property
    def spec(self) -> str:
        return write_spec("coo", self)

    def store(
        self, activation: Tensor, draw: Tensor | None, weights: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        kernel = kernels("coo", self.backend, activation.device, activation.dtype)
        values, rows, columns = kernel.compress(
            activation, self.sparsity, self.scope, self.selection_draw(draw), weights
        )
        return values, rows, columns

    def empty(self, activation: Tensor) -> tuple[Tensor, ...]:
        rows, features = activation.shape
        _, nnz = kept(rows, features, self.sparsity, self.scope)
        return (
            activation.new_empty(nnz),
            activation.new_empty(nnz, dtype=index_dtype(rows)),
            activation.new_empty(nnz, dtype=index_dtype(features)),
        )

    def product(self, buffers: tuple[Tensor, ...], grad_output: Tensor, features: int) -> Tensor:
        kernel = kernels("coo", self.backend, grad_output.device, grad_output.dtype)
        result: Tensor = kernel.grad_weight(*buffers, grad_output, features)
        return result

    def row_dot(self, buffers: tuple[Tensor, ...], other: Tensor) -> Tensor:
        if resolve("coo", self.backend, other.device, other.dtype) != "cpu":
            return super().row_dot(buffers, other)
        values, rows, columns = buffers
        every = torch.arange(other.shape[1] + 1, dtype=columns.dtype)
        return cpu.row_dot(values.__getitem__, rows, torch.searchsorted(columns, every), other)

    def expand(
        self, buffers: tuple[Tensor, ...], rows: int, features: int, dtype: torch.dtype
    ) -> Tensor:
        kernel = kernels("coo", self.backend, buffers[0].device, dtype)
        result: Tensor = kernel.to_dense(*buffers, rows, features)
        return result
