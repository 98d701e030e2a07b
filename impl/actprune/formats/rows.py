"""Rows: whole rows kept or sampled, as WTA-CRS does."""

from dataclasses import dataclass

from torch import Tensor

from actprune.formats.base import BaselineFormat
from actprune_kernels.sizes import index_dtype, keep_count


@dataclass(frozen=True, kw_only=True)
class Rows(BaselineFormat):
    """Samples rows in proportion to their norm, unbiased; `select=topk` keeps the largest.

    Options are those of BaselineFormat; `scope` is "column". Raises InputError on another.
    """

    name = "rows"
    fields = ("values", "index")
    scopes = ("column",)
    select: str = "priority"

    def empty_tensors(self, like: Tensor, rows: int, features: int) -> tuple[Tensor, ...]:
        keep = keep_count(rows, self.sparsity)
        index = like.new_empty(keep, dtype=index_dtype(rows))
        return like.new_empty(keep, features), index
