"""N of M: the largest of so many consecutive features, as sparse tensor cores read them."""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from actprune.formats.base import Compressed, Format
from actprune_common.errors import InputError, expected
from actprune_kernels.baselines import nm
from actprune_kernels.sizes import blocks_along


@dataclass(frozen=True, kw_only=True)
class Nm(Format):
    """Keeps the n largest of m consecutive features, written `nm:2:4`.

    Plain PyTorch on every device; on CUDA unmeasured.

    Args:
        n: How many stay of each group, 1 to m - 1.
        m: Features of a group: 2, 4, 8 or 16.

    Raises:
        InputError: n or m has another value.
    """

    name = "nm"
    fields = ("values", "places")
    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        if self.m not in nm.PER_BYTE or not 1 <= self.n < self.m:
            what = "N:M with M of 2, 4, 8, 16 and N below"
            raise expected("nm", what, f"{self.n}:{self.m}")

    @staticmethod
    def positional(text: str) -> dict[str, int]:
        """The options that stand after the colon. Raises InputError."""
        match = re.fullmatch(r"(\d+):(\d+)", text.strip() or "2:4")
        if match is None:
            raise InputError(f"nm: expected N:M such as 2:4, got {text!r}")
        return {"n": int(match[1]), "m": int(match[2])}

    @property
    def spec(self) -> str:
        return f"nm:{self.n}:{self.m}"

    def arguments(self, activation: Tensor, draw: Tensor | None, importance: Tensor | None) -> Any:
        return self.n, self.m

    def empty_tensors(self, like: Tensor, rows: int, features: int) -> tuple[Tensor, ...]:
        width = blocks_along(features, self.m) * self.n
        size = rows, blocks_along(width, nm.PER_BYTE[self.m])
        return like.new_empty(rows, width), like.new_empty(size, dtype=torch.uint8)

    def operands(self, compressed: Compressed, kernel: str) -> dict[str, Any]:
        return {**compressed.tensors, "n": self.n, "m": self.m}
