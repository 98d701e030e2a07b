"""Dense: the whole activation, as autograd would keep it; the row that all others are held to."""

from dataclasses import dataclass

import torch
from torch import Tensor

from actprune.formats.base import Format
from actprune_kernels.sizes import rows_at_once


@dataclass(frozen=True)
class Dense(Format):
    """Keeps a copy of X. A linear layer converted to `dense` is a plain nn.Linear, which does not
    even copy."""

    @property
    def spec(self) -> str:
        return "dense"

    def store(
        self, activation: Tensor, draw: Tensor | None, weights: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        return (activation.clone().contiguous(),)

    def empty(self, activation: Tensor) -> tuple[Tensor, ...]:
        return (activation.new_empty(activation.shape),)

    def product(self, buffers: tuple[Tensor, ...], grad_output: Tensor, features: int) -> Tensor:
        return grad_output.t() @ buffers[0]

    def rows_at_once(self, rows: int, features: int) -> int:
        return rows_at_once(features)

    def expand(
        self, buffers: tuple[Tensor, ...], rows: int, features: int, dtype: torch.dtype
    ) -> Tensor:
        return buffers[0].clone()
