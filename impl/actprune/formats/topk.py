"""Top-k: elements of each row, as DropIT keeps them."""

from dataclasses import dataclass

from torch import Tensor

from actprune.formats.base import BaselineFormat
from actprune_kernels.sizes import index_dtype, keep_count


@dataclass(frozen=True, kw_only=True)
class Topk(BaselineFormat):
    """Prunes elements of each row; 4 + 2 bytes for each that stays (fp32, 256 features or more).

    Options are those of BaselineFormat; `scope` is "row". Raises InputError on another.
    """

    name = "topk"
    fields = ("values", "columns")
    scopes = ("row",)
    scope: str = "row"

    def empty_tensors(self, like: Tensor, rows: int, features: int) -> tuple[Tensor, ...]:
        keep = keep_count(features, self.sparsity)
        columns = like.new_empty(rows, keep, dtype=index_dtype(features))
        return like.new_empty(rows, keep), columns
