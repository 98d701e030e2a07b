"""Rows: whole rows kept or sampled, as WTA-CRS does."""

from dataclasses import dataclass

import torch
from torch import Tensor

from actprune.formats.base import RivalFormat, check_option
from actprune.formats.spec import write_spec
from actprune_kernels.baselines import rows as kernel
from actprune_kernels.sizes import index_dtype, keep_count


@dataclass(frozen=True, kw_only=True)
class Rows(RivalFormat):
    """Samples rows in proportion to their norm, unbiased; `select=topk` keeps the largest."""

    select: str = "priority"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("scope", self.scope, ("column",))

    @property
    def spec(self) -> str:
        return write_spec("rows", self)

    def store(
        self, activation: Tensor, draw: Tensor | None, weights: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        return kernel.compress(activation, self.sparsity, self.selection_draw(draw), weights)

    def empty(self, activation: Tensor) -> tuple[Tensor, ...]:
        rows, features = activation.shape
        keep = keep_count(rows, self.sparsity)
        return (
            activation.new_empty(keep, features),
            activation.new_empty(keep, dtype=index_dtype(rows)),
        )

    def product(self, buffers: tuple[Tensor, ...], grad_output: Tensor, features: int) -> Tensor:
        values, index = buffers
        return kernel.grad_weight(values, index, grad_output)

    def row_dot(self, buffers: tuple[Tensor, ...], other: Tensor) -> Tensor:
        values, index = buffers
        return kernel.row_dot(values, index, other)

    def expand(
        self, buffers: tuple[Tensor, ...], rows: int, features: int, dtype: torch.dtype
    ) -> Tensor:
        values, index = buffers
        return kernel.to_dense(values, index, rows)
