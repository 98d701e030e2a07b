"""Quantised: the whole activation in few bits, as ActNN keeps it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from actprune.formats.base import Format
from actprune.formats.spec import write_spec
from actprune_common.errors import InputError
from actprune_kernels import quantization as codes
from actprune_kernels.baselines import quant
from actprune_kernels.sizes import blocks_along, rows_at_once

BITS = (8, 4, 2)


@dataclass(frozen=True, kw_only=True)
class Quant(Format):
    """Groups of consecutive values in `bits` bits with a scale each, rounded stochastically.

    Plain PyTorch on every device; on CUDA unmeasured.
    """

    bits: int = 4
    group: int = 64
    seed: int = 0
    stochastic = True
    exact = False

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise InputError(f"bits: expected one of 8, 4, 2, got {self.bits}")
        if not 1 <= self.group <= 65536:
            raise InputError(f"group: expected 1 to 65536 values, got {self.group}")
        if self.seed < 0:
            raise InputError(f"seed: expected 0 or more, got {self.seed}")

    @property
    def spec(self) -> str:
        return write_spec("quant", self)

    @property
    def _kind(self) -> str:
        return f"int{self.bits}"

    def store(
        self, activation: Tensor, draw: Tensor | None, weights: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        draw = self.first_draw() if draw is None else draw
        return quant.compress(activation, self.group, self._kind, draw)

    def empty(self, activation: Tensor) -> tuple[Tensor, ...]:
        groups = blocks_along(activation.numel(), self.group)
        return codes.empty(activation, groups, self.group, self._kind)

    def nnz(self, buffers: tuple[Tensor, ...], rows: int, features: int) -> int:
        return rows * features

    def product(self, buffers: tuple[Tensor, ...], grad_output: Tensor, features: int) -> Tensor:
        return quant.grad_weight(buffers, self.group, self._kind, grad_output, features)

    def rows_at_once(self, rows: int, features: int) -> int:
        return rows_at_once(features, quant.whole_rows(self.group, features))

    def rows_of(
        self, buffers: tuple[Tensor, ...], start: int, count: int, features: int
    ) -> tuple[Tensor, ...]:
        first, last = (
            start * features // self.group,
            blocks_along((start + count) * features, self.group),
        )
        return tuple(part[first:last] for part in buffers)

    def expand(
        self, buffers: tuple[Tensor, ...], rows: int, features: int, dtype: torch.dtype
    ) -> Tensor:
        return quant.to_dense(buffers, self.group, self._kind, rows, features, dtype)
