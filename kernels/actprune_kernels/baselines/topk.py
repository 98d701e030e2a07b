"""Elements of each row (DropIT: Chen et al. 2023, arXiv 2202.13808).

values (rows, keep) and columns (rows, keep), ascending, in the smallest index type.
"""

import torch
from torch import Tensor

from actprune_kernels.baselines import selection, summed
from actprune_kernels.chunked import in_pieces
from actprune_kernels.selection import generator, weighed
from actprune_kernels.sizes import index_dtype, keep_count, rows_at_once, wide


def compress(
    activation: Tensor, sparsity: float, draw: Tensor | None, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    rows, features = activation.shape
    keep = keep_count(features, sparsity)
    source = None if draw is None else generator(draw)

    def some(piece: slice) -> tuple[Tensor, Tensor]:
        part = activation[piece]
        magnitudes = part.abs().to(wide(activation.dtype)).contiguous()
        if weights is not None:
            magnitudes = weighed(magnitudes.t(), weights[piece]).t().contiguous()
        # a group is what the selection calls a column: here a row
        mask, scale = selection(activation.device).select(magnitudes, keep, "column", source)
        values = part[mask]
        if scale is not None:
            values = (values * scale).to(activation.dtype)
        columns = mask.nonzero()[:, 1].to(index_dtype(features))
        return values.view(len(part), keep), columns.view(len(part), keep)

    return in_pieces(some, rows, rows_at_once(features))


def grad_weight(values: Tensor, columns: Tensor, grad_output: Tensor, features: int) -> Tensor:
    def take(piece: slice) -> Tensor:
        return to_dense(values[piece], columns[piece], features)

    return summed(take, grad_output, features, rows_at_once(features))


def to_dense(values: Tensor, columns: Tensor, features: int) -> Tensor:
    dense = torch.zeros(len(values), features, dtype=values.dtype, device=values.device)
    return dense.scatter_(1, columns.long(), values)
