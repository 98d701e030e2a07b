"""Top-k: elements of each row, as DropIT keeps them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from actprune.formats.base import RivalFormat, check_option
from actprune.formats.spec import write_spec
from actprune_kernels.baselines import topk
from actprune_kernels.sizes import index_dtype, keep_count, rows_at_once


@dataclass(frozen=True, kw_only=True)
class Topk(RivalFormat):
    """Prunes elements of each row; 4 + 2 bytes for each that stays (fp32, 256 features or more)."""

    scope: str = "row"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("scope", self.scope, ("row",))

    @property
    def spec(self) -> str:
        return write_spec("topk", self)

    def store(
        self, activation: Tensor, draw: Tensor | None, weights: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        return topk.compress(activation, self.sparsity, self.selection_draw(draw), weights)

    def empty(self, activation: Tensor) -> tuple[Tensor, ...]:
        rows, features = activation.shape
        keep = keep_count(features, self.sparsity)
        return (
            activation.new_empty(rows, keep),
            activation.new_empty(rows, keep, dtype=index_dtype(features)),
        )

    def product(self, buffers: tuple[Tensor, ...], grad_output: Tensor, features: int) -> Tensor:
        values, columns = buffers
        return topk.grad_weight(values, columns, grad_output, features)

    def rows_at_once(self, rows: int, features: int) -> int:
        return rows_at_once(features)

    def expand(
        self, buffers: tuple[Tensor, ...], rows: int, features: int, dtype: torch.dtype
    ) -> Tensor:
        values, columns = buffers
        return topk.to_dense(values, columns, features)
