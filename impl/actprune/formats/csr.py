"""CSR of Xᵀ: single elements, column by column of X."""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from actprune.formats.base import Compressed
from actprune.formats.quantized import QuantizedFormat
from actprune_kernels import quantization
from actprune_kernels.quantization import SAME, Quantized
from actprune_kernels.sizes import Size, blocks_along, kept

GROUP = 64
"""Quantized values that share a scale: neighbours in the order of storage."""


@dataclass(frozen=True, kw_only=True)
class Csr(QuantizedFormat):
    """Prunes elements, which are kept column by column, each with its row.

    4 + 2 bytes for each that stays (fp32, up to 32,767 rows). Options are those of QuantizedFormat.
    """

    name = "csr"
    index = ("rows", "colptr")

    def compress_tensors(
        self, activation: Tensor, draw: Tensor | None, sample_importance: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        values, *index = super().compress_tensors(activation, draw, sample_importance)
        if self.values == SAME:
            return values, *index
        groups = F.pad(values, (0, -len(values) % GROUP)).view(-1, GROUP)
        encode = quantization.backend(values.device, self.backend).encode
        return *encode(groups, self.values, self.rounding_draw(draw)), *index

    def empty_tensors(self, like: Tensor, rows: int, features: int) -> tuple[Tensor, ...]:
        _, nnz = kept(rows, features, self.sparsity, self.scope)
        values: tuple[Tensor, ...] = (like.new_empty(nnz),)
        if self.values != SAME:
            groups = blocks_along(nnz, GROUP)
            values = quantization.empty(like, groups, GROUP, self.values)
        return *values, *self.empty_index(like, nnz, rows, features)

    def block_of(self, rows: int, features: int) -> Size:
        return 1, GROUP

    def operands(self, compressed: Compressed, kernel: str) -> dict[str, Any]:
        operands = super().operands(compressed, kernel)
        values = operands["values"]
        if isinstance(values, Quantized) and kernel != "row_dot":  # which decodes some at a time
            operands["values"] = values.flat(slice(0, self.nnz(compressed))).to(compressed.dtype)
        return operands

    def nnz(self, compressed: Compressed) -> int:
        return compressed.tensors["rows"].numel()
