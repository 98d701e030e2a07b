"""Selection by one stable sort: the definition."""

import numpy as np
import torch
from torch import Tensor

from actprune_kernels.selection import grouped, rescale, uniforms


def select(
    magnitudes: Tensor, keep: int, scope: str, draw: Tensor | np.random.Generator | None
) -> tuple[Tensor, Tensor | None]:
    """See the package's docstring."""
    ranks = magnitudes
    if draw is not None:
        ranks = magnitudes / uniforms(magnitudes, draw)
    groups = grouped(ranks, scope)
    order = groups.argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order[:, :keep], True)
    if draw is None:
        return _ungroup(mask, scope, magnitudes), None
    threshold = groups.new_zeros(len(groups), 1)
    if keep < groups.shape[1]:
        threshold = groups.gather(1, order[:, keep : keep + 1])
    scale = rescale(grouped(magnitudes, scope), threshold)
    mask = _ungroup(mask, scope, magnitudes)
    return mask, _ungroup(scale, scope, magnitudes)[mask]


def _ungroup(groups: Tensor, scope: str, like: Tensor) -> Tensor:
    return groups.t() if scope == "row" else groups.reshape(like.shape)
