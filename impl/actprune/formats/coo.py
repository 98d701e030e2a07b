"""COO: single elements, each with its row and column."""

from dataclasses import dataclass

from torch import Tensor

from actprune.formats.base import PruningFormat
from actprune_kernels.sizes import index_dtype, kept


@dataclass(frozen=True, kw_only=True)
class Coo(PruningFormat):
    """Prunes elements, each of which is kept with its row and column.

    4 + 2 + 2 bytes for each that stays (fp32, up to 32,767 each way). Options are those of
    PruningFormat.
    """

    name = "coo"
    fields = ("values", "rows", "columns")

    def empty_tensors(self, like: Tensor, rows: int, features: int) -> tuple[Tensor, ...]:
        _, nnz = kept(rows, features, self.sparsity, self.scope)
        types = like.dtype, index_dtype(rows), index_dtype(features)
        return tuple(like.new_empty(nnz, dtype=dtype) for dtype in types)
