"""Piece by piece, so that the temporaries stay in the cache and add nothing to a peak."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.gelu import CELL, FIRST, ROW, STEP, rows
from actprune_kernels.sizes import wide

PIECE = 1 << 18
"""Elements, a multiple of ROW."""


def forward_(h: Tensor) -> Tensor:
    codes = h.new_empty(-(-h.numel() // 4), dtype=torch.uint8)
    for piece, four in _pieces(h, codes):
        cells = piece.to(wide(h.dtype)) * (1 / STEP)  # evenly spaced, so no comparisons are needed
        cells.add_(2).clamp_(0, 3).floor_()
        first, *others = torch.split(cells, four.shape[1], 1)
        for place, part in enumerate(others, 1):
            first[:, : part.shape[1]].add_(part, alpha=1 << (2 * place))
        four.copy_(first)
        piece.copy_(F.gelu(piece))
    return codes


def backward_(grad: Tensor, codes: Tensor) -> None:
    for piece, four in _pieces(grad, codes):
        levels = torch.empty_like(piece, dtype=wide(grad.dtype))
        for place, part in enumerate(torch.split(levels, four.shape[1], 1)):
            part.copy_((four >> (2 * place) & 3)[:, : part.shape[1]])
        piece.mul_(levels.mul_(CELL).add_(FIRST))


def _pieces(values: Tensor, codes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some rows of values with their codes, at a time."""
    for of_values, of_codes in zip(rows(values.view(-1), ROW), rows(codes, ROW // 4), strict=True):
        if of_values.numel():
            pieces = (torch.split(part, PIECE // ROW) for part in (of_values, of_codes))
            yield from zip(*pieces, strict=True)
