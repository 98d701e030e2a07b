"""BSR of Xᵀ: whole blocks in block-column order."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from actprune.formats.base import Compressed
from actprune.formats.quantized import QuantizedFormat
from actprune_common.errors import InputError, check_one_of
from actprune_kernels import quantization
from actprune_kernels.quantization import SAME
from actprune_kernels.sizes import NORMS, Size, blocks_along, kept

LARGEST_BLOCK = 128


@dataclass(frozen=True, kw_only=True)
class Bsr(QuantizedFormat):
    """Prunes blocks of bm rows by bn features; ragged edges are allowed.

    Args:
        block: (bm, bn), each 1 to 128; an activation with fewer rows or features has smaller ones.
        norm: What a block is worth: "l2", "l1", or "max", its largest magnitude.

    The other options are those of QuantizedFormat. Raises InputError on another value.
    """

    name = "bsr"
    index = ("block_rows", "colptr")
    block: Size = (32, 32)
    norm: str = "l2"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(1 <= size <= LARGEST_BLOCK for size in self.block):
            got = "x".join(map(str, self.block))
            raise InputError(f"block: expected 1x1 to {LARGEST_BLOCK}x{LARGEST_BLOCK}, got {got}")
        check_one_of("norm", self.norm, NORMS)

    def arguments(self, activation: Tensor, draw: Tensor | None, importance: Tensor | None) -> Any:
        (selection,) = super().arguments(activation, draw, importance)
        block = self.block_of(*activation.shape)
        return block, self.norm, selection, self.values, self.rounding_draw(draw)

    def empty_tensors(self, like: Tensor, rows: int, features: int) -> tuple[Tensor, ...]:
        block = self.block_of(rows, features)
        block_rows, block_cols = map(blocks_along, (rows, features), block)
        _, nnz = kept(block_rows, block_cols, self.sparsity, self.scope)
        values, *grid = quantization.empty(like, nnz, math.prod(block), self.values)
        values = values.view(nnz, *block) if self.values == SAME else values
        return values, *grid, *self.empty_index(like, nnz, block_rows, block_cols)

    def operands(self, compressed: Compressed, kernel: str) -> dict[str, Any]:
        operands = super().operands(compressed, kernel)
        return {**operands, "scope": self.scope} if kernel == "grad_weight" else operands

    def nnz(self, compressed: Compressed) -> int:
        block = self.block_of(*compressed.shape)
        return compressed.tensors["block_rows"].numel() * math.prod(block)

    def block_of(self, rows: int, features: int) -> Size:
        """No larger than the activation, so that a narrow one stores no zeros beyond its edge."""
        return min(self.block[0], max(1, rows)), min(self.block[1], max(1, features))
