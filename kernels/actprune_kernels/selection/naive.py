"""Selection by one stable sort: the definition."""

import numpy as np
import torch
from torch import Tensor

from actprune_kernels.selection import rescale, uniforms


def select(
    magnitudes: Tensor, keep: int, scope: str, draw: Tensor | np.random.Generator | None
) -> tuple[Tensor, Tensor | None]:
    """See the package's docstring."""
    ranks = magnitudes
    if draw is not None:
        ranks = magnitudes / uniforms(tuple(magnitudes.shape), magnitudes.dtype, draw).to(
            magnitudes.device
        )
    grouped = _group(ranks, scope)
    order = grouped.argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros_like(grouped, dtype=torch.bool).scatter_(1, order[:, :keep], True)
    if draw is None:
        return _ungroup(mask, scope, magnitudes), None
    threshold = grouped.new_zeros(grouped.shape[0], 1)
    if keep < grouped.shape[1]:
        threshold = grouped.gather(1, order[:, keep : keep + 1])
    scale = rescale(_group(magnitudes, scope), threshold)
    mask = _ungroup(mask, scope, magnitudes)
    return mask, _ungroup(scale, scope, magnitudes)[mask]


def _group(columns_by_rows: Tensor, scope: str) -> Tensor:
    if scope == "global":
        return columns_by_rows.reshape(1, -1)
    return columns_by_rows if scope == "column" else columns_by_rows.t()


def _ungroup(grouped: Tensor, scope: str, like: Tensor) -> Tensor:
    return grouped.t() if scope == "row" else grouped.reshape(like.shape)
