"""Selection by a partition of integer keys.

The bits of a non-negative float, read as an integer, sort as the float does, with NaN above Inf:
NumPy's vectorised quickselect then needs no special case, and reads half precision as it is.
"""

import numpy as np
import torch
from torch import Tensor

from actprune_kernels.selection import rescale, uniforms

_KEY = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def select(
    magnitudes: Tensor, keep: int, scope: str, draw: Tensor | np.random.Generator | None
) -> tuple[Tensor, Tensor | None]:
    """See the package's docstring."""
    if draw is None:
        return _topk(_group(magnitudes, scope), keep, scope, magnitudes)[0], None
    shape = tuple(magnitudes.shape)
    ranks = magnitudes / uniforms(shape, magnitudes.dtype, draw)
    mask, threshold = _topk(_group(ranks, scope), keep, scope, magnitudes)
    if scope == "global":
        per_kept = threshold
    else:
        column, row = mask.nonzero(as_tuple=True)
        per_kept = threshold[column if scope == "column" else row]
    return mask, rescale(magnitudes[mask], per_kept)


def _topk(grouped: Tensor, keep: int, scope: str, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mask of the `keep` largest of each group, and the largest that each group dropped."""
    size = grouped.shape[1]
    if keep == size:
        return torch.ones_like(like, dtype=torch.bool), grouped.new_zeros(grouped.shape[0])
    keys = grouped.view(_KEY[grouped.element_size()])
    parted = torch.from_numpy(np.partition(keys.numpy(), size - keep - 1, axis=1))
    dropped = parted[:, size - keep - 1]
    smallest = parted[:, size - keep :].amin(1, keepdim=True)
    mask = keys >= smallest
    if int(mask.count_nonzero()) != keep * len(keys):
        mask = _break_ties(keys, smallest, keep)
    mask = mask.t().contiguous() if scope == "row" else mask.view(like.shape)
    return mask, dropped.contiguous().view(grouped.dtype)


def _break_ties(keys: Tensor, smallest: Tensor, keep: int) -> Tensor:
    above, tied = keys > smallest, keys == smallest
    missing = keep - above.sum(1, keepdim=True)
    return above | (tied & (tied.cumsum(1) <= missing))


def _group(columns_by_rows: Tensor, scope: str) -> Tensor:
    if scope == "global":
        return columns_by_rows.reshape(1, -1)
    return (columns_by_rows if scope == "column" else columns_by_rows.t()).contiguous()
