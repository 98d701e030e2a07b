"""Selection by a partition of integer keys.

The bits of a non-negative float, read as an integer, sort as the float does, with NaN above Inf:
NumPy's vectorised quickselect then needs no special case, and reads half precision as it is.
"""

import numpy as np
import torch
from torch import Tensor

from actprune_kernels.selection import grouped, largest, rescale, uniforms

_KEY = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def select(
    magnitudes: Tensor, keep: int, scope: str, draw: Tensor | np.random.Generator | None
) -> tuple[Tensor, Tensor | None]:
    """See the package's docstring."""
    if draw is None:
        return _topk(grouped(magnitudes, scope), keep, scope, magnitudes)[0], None
    ranks = magnitudes / uniforms(magnitudes, draw)
    mask, threshold = _topk(grouped(ranks, scope), keep, scope, magnitudes)
    if scope == "global":
        per_kept = threshold
    else:
        column, row = mask.nonzero(as_tuple=True)
        per_kept = threshold[column if scope == "column" else row]
    return mask, rescale(magnitudes[mask], per_kept)


def _topk(groups: Tensor, keep: int, scope: str, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mask of the `keep` largest of each group, and the largest that each group dropped."""
    size = groups.shape[1]
    if keep == size:
        return torch.ones_like(like, dtype=torch.bool), groups.new_zeros(len(groups))
    keys = groups.contiguous().view(_KEY[groups.element_size()])
    parted = torch.from_numpy(np.partition(keys.numpy(), size - keep - 1, axis=1))
    dropped = parted[:, size - keep - 1]
    smallest = parted[:, size - keep :].amin(1, keepdim=True)
    mask = keys >= smallest
    if int(mask.count_nonzero()) != keep * len(keys):
        mask = largest(keys, smallest, keep)
    mask = mask.t().contiguous() if scope == "row" else mask.view(like.shape)
    return mask, dropped.contiguous().view(groups.dtype)
