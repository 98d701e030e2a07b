"""Quantised: the whole activation in few bits, as ActNN keeps it."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from actprune.formats.base import Compressed, Format
from actprune_common.errors import InputError, check_at_least, check_one_of
from actprune_kernels import quantization
from actprune_kernels.quantization import FIELDS, Quantized
from actprune_kernels.sizes import blocks_along


@dataclass(frozen=True, kw_only=True)
class Quant(Format):
    """Groups of consecutive values in `bits` bits with a scale each, rounded stochastically.

    Plain PyTorch on every device; on CUDA unmeasured.

    Args:
        bits: To a value: 8, 4 or 2.
        group: Values that share a scale, 1 to 65536.
        seed: Of the first draw of the rounding, 0 or more.

    Raises:
        InputError: An option has another value.
    """

    name = "quant"
    bits: int = 4
    group: int = 64
    seed: int = 0
    stochastic = True
    exact = False

    def __post_init__(self) -> None:
        check_one_of("bits", self.bits, (8, 4, 2))
        if not 1 <= self.group <= 65536:
            raise InputError(f"group: expected 1 to 65536 values, got {self.group}")
        check_at_least("seed", self.seed, 0)

    @property
    def fields(self) -> tuple[str, ...]:
        return FIELDS[self._kind]

    @property
    def _kind(self) -> str:
        return f"int{self.bits}"

    def arguments(self, activation: Tensor, draw: Tensor | None, importance: Tensor | None) -> Any:
        return self.group, self._kind, self.drawn(draw, True)

    def empty_tensors(self, like: Tensor, rows: int, features: int) -> tuple[Tensor, ...]:
        groups = blocks_along(rows * features, self.group)
        return quantization.empty(like, groups, self.group, self._kind)

    def operands(self, compressed: Compressed, kernel: str) -> dict[str, Any]:
        shape = len(compressed.tensors["scales"]), 1, self.group
        return {"values": Quantized(compressed.buffers, self._kind, shape, compressed.dtype)}

    def nnz(self, compressed: Compressed) -> int:
        return compressed.shape[0] * compressed.shape[1]
