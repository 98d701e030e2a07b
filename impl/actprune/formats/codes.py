"""Codes: the whole activation in few bits, rounded to the nearest, as fast as a copy."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from actprune.formats.base import Compressed, Format
from actprune_common.errors import InputError, check_one_of
from actprune_kernels import codes
from actprune_kernels.sizes import blocks_along


@dataclass(frozen=True, kw_only=True)
class Codes(Format):
    """Groups of consecutive values in `bits` bits, each rounded to the nearest of its levels.

    It repeats and errs less than `quant`, whose rounding is stochastic, but is not unbiased. It
    serves whatever autograd saves, not products alone (actprune_kernels.codes).

    Args:
        bits: To a value: 8, 4 or 2.
        group: Values that share a scale, at most: a multiple of 8 from 32 to 128.

    Raises:
        InputError: An option has another value.
    """

    name = "codes"
    bits: int = 4
    group: int = 128
    exact = False
    fields = ("codes",)

    def __post_init__(self) -> None:
        check_one_of("bits", self.bits, (8, 4, 2))
        if self.group not in range(32, 129, 8):
            what = "a multiple of 8 from 32 to 128 values"
            raise InputError(f"group: expected {what}, got {self.group}")

    def arguments(self, activation: Tensor, draw: Tensor | None, importance: Tensor | None) -> Any:
        return self.bits, self.group

    def empty_tensors(self, like: Tensor, rows: int, features: int) -> tuple[Tensor, ...]:
        shape = blocks_along(rows * features, self.group), codes.width(self.bits, self.group)
        return (like.new_empty(shape, dtype=torch.uint8),)

    def operands(self, compressed: Compressed, kernel: str) -> dict[str, Any]:
        options = {"bits": self.bits, "group": self.group, "dtype": compressed.dtype}
        return compressed.tensors | options

    def nnz(self, compressed: Compressed) -> int:
        return compressed.shape[0] * compressed.shape[1]
