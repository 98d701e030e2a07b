"""CSR of Xᵀ: single elements, column by column of X."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune.formats.coded import CodedFormat
from actprune.formats.spec import write_spec
from actprune_kernels import quantization as codes
from actprune_kernels.backends import kernels, resolve
from actprune_kernels.csr import cpu
from actprune_kernels.quantization import SAME
from actprune_kernels.sizes import blocks_along, index_dtype, kept, wide

GROUP = 64
"""Coded values that share a scale: neighbours in storage order."""


@dataclass(frozen=True, kw_only=True)
class Csr(CodedFormat):
    """Prunes elements; 4 + 2 bytes for each that stays (fp32, up to 32,767 rows)."""

    @property
    def spec(self) -> str:
        return write_spec("csr", self)

    def store(
        self, activation: Tensor, draw: Tensor | None, weights: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        kernel = kernels("csr", self.backend, activation.device, activation.dtype)
        values, rows, colptr = kernel.compress(
            activation, self.sparsity, self.scope, self.selection_draw(draw), weights
        )
        if self.values == SAME:
            return values, rows, colptr
        groups = F.pad(values, (0, -len(values) % GROUP)).view(-1, GROUP)
        encode = codes.backend(values.device, self.backend).encode
        return *encode(groups, self.values, self.rounding_draw(draw)), rows, colptr

    def empty(self, activation: Tensor) -> tuple[Tensor, ...]:
        rows, features = activation.shape
        _, nnz = kept(rows, features, self.sparsity, self.scope)
        if self.values == SAME:
            values: tuple[Tensor, ...] = (activation.new_empty(nnz),)
        else:
            values = codes.empty(activation, blocks_along(nnz, GROUP), GROUP, self.values)
        return (
            *values,
            activation.new_empty(nnz, dtype=index_dtype(rows)),
            activation.new_empty(features + 1, dtype=index_dtype(nnz)),
        )

    def nnz(self, buffers: tuple[Tensor, ...], rows: int, features: int) -> int:
        return buffers[-2].numel()

    def product(self, buffers: tuple[Tensor, ...], grad_output: Tensor, features: int) -> Tensor:
        kernel = kernels("csr", self.backend, grad_output.device, grad_output.dtype)
        values = self._values(buffers, grad_output.dtype)
        result: Tensor = kernel.grad_weight(values, *buffers[-2:], grad_output)
        return result

    def row_dot(self, buffers: tuple[Tensor, ...], other: Tensor) -> Tensor:
        if resolve("csr", self.backend, other.device, other.dtype) != "cpu":
            return super().row_dot(buffers, other)
        values, (rows, colptr) = buffers[:-2], buffers[-2:]

        def take(piece: slice) -> Tensor:
            return self._some(values, piece, other.dtype)

        return cpu.row_dot(take, rows, colptr, other)

    def expand(
        self, buffers: tuple[Tensor, ...], rows: int, features: int, dtype: torch.dtype
    ) -> Tensor:
        kernel = kernels("csr", self.backend, buffers[0].device, dtype)
        result: Tensor = kernel.to_dense(self._values(buffers, dtype), *buffers[-2:], rows)
        return result

    def _values(self, buffers: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
        if self.values == SAME:
            return buffers[0]
        return self._some(buffers[:-2], slice(0, len(buffers[-2])), dtype)

    def _some(self, values: tuple[Tensor, ...], piece: slice, dtype: torch.dtype) -> Tensor:
        """Some of the values, decoded where they are coded."""
        if self.values == SAME:
            return values[0][piece]
        first, stop = piece.start // GROUP, blocks_along(piece.stop, GROUP)
        decode = codes.backend(values[0].device, self.backend).decode
        parts = tuple(part[first:stop] for part in values)
        groups: Tensor = decode(parts, self.values, GROUP, wide(dtype))
        return groups.view(-1)[piece.start - first * GROUP :][: piece.stop - piece.start].to(dtype)
