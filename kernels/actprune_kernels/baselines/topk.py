"""Elements of each row (DropIT: Chen et al. 2023, arXiv 2202.13808).

values (rows, keep) and columns (rows, keep), ascending, in the smallest index type.
"""

from torch import Tensor

from actprune_kernels.baselines import by_rows, select
from actprune_kernels.chunked import in_chunks
from actprune_kernels.selection import Selection, generator, scaled
from actprune_kernels.sizes import index_dtype, rows_at_once, wide


def compress(activation: Tensor, selection: Selection) -> tuple[Tensor, Tensor]:
    rows, features = activation.shape
    keep, _ = selection.kept(rows, features)
    source = None if selection.draw is None else generator(selection.draw)
    importance = selection.sample_importance

    def some(piece: slice) -> tuple[Tensor, Tensor]:
        part = activation[piece]
        magnitudes = part.abs().to(wide(activation.dtype)).contiguous()
        if importance is not None:
            magnitudes = magnitudes * importance[piece, None].to(magnitudes.dtype)
        # a group is what the selection calls a column: here a row
        mask, scale = select(magnitudes, keep, "column", source)
        values = scaled(part[mask], scale)
        columns = mask.nonzero()[:, 1].to(index_dtype(features))
        return values.view(len(part), keep), columns.view(len(part), keep)

    return in_chunks(some, rows, rows_at_once(features))


def _rows(piece: slice, features: int, values: Tensor, columns: Tensor) -> Tensor:
    some = values[piece]
    return some.new_zeros(len(some), features).scatter_(1, columns[piece].long(), some)


grad_weight, row_dot, to_dense = by_rows(_rows)
