"""BSR of Xᵀ: whole blocks in block-column order."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from actprune.formats.base import check_option
from actprune.formats.coded import CodedFormat
from actprune.formats.spec import write_spec
from actprune_common.errors import InputError
from actprune_kernels import quantization as codes
from actprune_kernels.backends import kernels, resolve
from actprune_kernels.bsr import cpu
from actprune_kernels.quantization import SAME
from actprune_kernels.sizes import NORMS, blocks_along, index_dtype, kept

LARGEST_BLOCK = 128


@dataclass(frozen=True, kw_only=True)
class Bsr(CodedFormat):
    """Prunes blocks of bm rows by bn features; ragged edges are allowed."""

    block: tuple[int, int] = (32, 32)
    norm: str = "l2"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(1 <= size <= LARGEST_BLOCK for size in self.block):
            height, width = self.block
            raise InputError(
                f"block: expected 1x1 to {LARGEST_BLOCK}x{LARGEST_BLOCK}, got {height}x{width}"
            )
        check_option("norm", self.norm, NORMS)

    @property
    def spec(self) -> str:
        return write_spec("bsr", self)

    def store(
        self, activation: Tensor, draw: Tensor | None, weights: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        kernel = kernels("bsr", self.backend, activation.device, activation.dtype)
        block = self._block(*activation.shape)
        draws = self.selection_draw(draw), weights, self.values, self.rounding_draw(draw)
        buffers: tuple[Tensor, ...] = kernel.compress(
            activation, *block, self.sparsity, self.scope, self.norm, *draws
        )
        return buffers

    def empty(self, activation: Tensor) -> tuple[Tensor, ...]:
        block = self._block(*activation.shape)
        block_rows, block_cols = map(blocks_along, activation.shape, block)
        _, nnz = kept(block_rows, block_cols, self.sparsity, self.scope)
        if self.values == SAME:
            kept_values: tuple[Tensor, ...] = (activation.new_empty(nnz, *block),)
        else:
            kept_values = codes.empty(activation, nnz, math.prod(block), self.values)
        return (
            *kept_values,
            activation.new_empty(nnz, dtype=index_dtype(block_rows)),
            activation.new_empty(block_cols + 1, dtype=index_dtype(nnz)),
        )

    def nnz(self, buffers: tuple[Tensor, ...], rows: int, features: int) -> int:
        return buffers[-2].numel() * math.prod(self._block(rows, features))

    def product(self, buffers: tuple[Tensor, ...], grad_output: Tensor, features: int) -> Tensor:
        kernel = kernels("bsr", self.backend, grad_output.device, grad_output.dtype)
        block = self._block(len(grad_output), features)
        kept_values = self._values(buffers, block, grad_output.dtype)
        result: Tensor = kernel.grad_weight(
            kept_values, *buffers[-2:], grad_output, features, self.scope
        )
        return result

    def row_dot(self, buffers: tuple[Tensor, ...], other: Tensor) -> Tensor:
        if resolve("bsr", self.backend, other.device, other.dtype) != "cpu":
            return super().row_dot(buffers, other)
        *_, block_rows, colptr = buffers
        rows, features = other.shape
        kept_values = self._values(buffers, self._block(rows, features), other.dtype)
        return cpu.row_dot(kept_values, block_rows, colptr, other)

    def expand(
        self, buffers: tuple[Tensor, ...], rows: int, features: int, dtype: torch.dtype
    ) -> Tensor:
        kernel = kernels("bsr", self.backend, buffers[0].device, dtype)
        kept_values = self._values(buffers, self._block(rows, features), dtype)
        result: Tensor = kernel.to_dense(kept_values, *buffers[-2:], rows, features)
        return result

    def _block(self, rows: int, features: int) -> tuple[int, int]:
        """No larger than the activation, so that a narrow one stores no zeros beyond its edge."""
        return min(self.block[0], max(1, rows)), min(self.block[1], max(1, features))

    def _values(
        self, buffers: tuple[Tensor, ...], block: tuple[int, int], dtype: torch.dtype
    ) -> Tensor | codes.Coded:
        """As the kernels take them."""
        if self.values == SAME:
            return buffers[0]
        shape = len(buffers[-2]), *block
        return codes.Coded(buffers[:-2], self.values, shape, dtype)
