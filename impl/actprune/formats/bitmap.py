"""Bitmap: elements and a bit for each place, as Back Razor keeps them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from actprune.formats.base import RivalFormat
from actprune.formats.spec import write_spec
from actprune_kernels.baselines import bitmap
from actprune_kernels.sizes import blocks_along, kept


@dataclass(frozen=True, kw_only=True)
class Bitmap(RivalFormat):
    """Prunes elements; 4 bytes for each that stays (fp32), and a bit for every one."""

    @property
    def spec(self) -> str:
        return write_spec("bitmap", self)

    def store(
        self, activation: Tensor, draw: Tensor | None, weights: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        draw = self.selection_draw(draw)
        return bitmap.compress(activation, self.sparsity, self.scope, draw, weights)

    def empty(self, activation: Tensor) -> tuple[Tensor, ...]:
        rows, features = activation.shape
        _, nnz = kept(rows, features, self.sparsity, self.scope)
        return (
            activation.new_empty(nnz),
            activation.new_empty(features, blocks_along(rows, 8), dtype=torch.uint8),
        )

    def product(self, buffers: tuple[Tensor, ...], grad_output: Tensor, features: int) -> Tensor:
        values, bits = buffers
        return bitmap.grad_weight(values, bits, grad_output)

    def row_dot(self, buffers: tuple[Tensor, ...], other: Tensor) -> Tensor:
        values, bits = buffers
        return bitmap.row_dot(values, bits, other)

    def expand(
        self, buffers: tuple[Tensor, ...], rows: int, features: int, dtype: torch.dtype
    ) -> Tensor:
        values, bits = buffers
        return bitmap.to_dense(values, bits, rows)
