"""N of M: the largest of so many consecutive features, as sparse tensor cores read them."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from actprune.formats.base import Format
from actprune_common.errors import InputError
from actprune_kernels.baselines import nm
from actprune_kernels.sizes import blocks_along, rows_at_once


@dataclass(frozen=True, kw_only=True)
class Nm(Format):
    """Keeps the n largest of m consecutive features, written `nm:2:4`.

    Plain PyTorch on every device; on CUDA unmeasured.
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        if self.m not in nm.PER_BYTE or not 1 <= self.n < self.m:
            raise InputError(f"nm: expected N:M with M of 2, 4, 8, 16 and N below, got {self.text}")

    @staticmethod
    def positional(text: str) -> dict[str, int]:
        """The options that stand after the colon. Raises InputError."""
        match = re.fullmatch(r"(\d+):(\d+)", text.strip() or "2:4")
        if match is None:
            raise InputError(f"nm: expected N:M such as 2:4, got {text!r}")
        return {"n": int(match[1]), "m": int(match[2])}

    @property
    def text(self) -> str:
        """As it stands in the spec."""
        return f"{self.n}:{self.m}"

    @property
    def spec(self) -> str:
        return f"nm:{self.text}"

    def store(
        self, activation: Tensor, draw: Tensor | None, weights: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        return nm.compress(activation, self.n, self.m)

    def empty(self, activation: Tensor) -> tuple[Tensor, ...]:
        rows, features = activation.shape
        width = blocks_along(features, self.m) * self.n
        places = blocks_along(width, nm.PER_BYTE[self.m])
        return (
            activation.new_empty(rows, width),
            activation.new_empty(rows, places, dtype=torch.uint8),
        )

    def product(self, buffers: tuple[Tensor, ...], grad_output: Tensor, features: int) -> Tensor:
        values, places = buffers
        return nm.grad_weight(values, places, self.n, self.m, grad_output, features)

    def rows_at_once(self, rows: int, features: int) -> int:
        return rows_at_once(features)

    def expand(
        self, buffers: tuple[Tensor, ...], rows: int, features: int, dtype: torch.dtype
    ) -> Tensor:
        values, places = buffers
        return nm.to_dense(values, places, self.n, self.m, features)
