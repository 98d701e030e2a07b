"""Piece by piece, so that the temporaries stay in the cache and add nothing to a peak."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.gelu import EDGE, ROW, STEP, cell, first, naive, rows
from actprune_kernels.quantization.cpu import pack_, unpack_
from actprune_kernels.quantization.naive import packed
from actprune_kernels.sizes import rows_at_once, wide


def forward_(h: Tensor, bits: int) -> Tensor:
    codes = h.new_empty(-(-h.numel() * bits // 8), dtype=torch.uint8)
    last = (1 << bits) - 1
    for piece, part in _pieces(h, codes, bits):
        cells = _places(piece.to(wide(h.dtype)), bits).clamp_(0, last).floor_()
        whole = pack_(cells, bits)
        if whole.sum().isnan():  # it would spoil the others of its byte
            places = naive.quantised(naive.derivative(piece.to(wide(h.dtype))), bits)
            whole = packed(places, 8 // bits)
        part.copy_(whole)
        piece.copy_(F.gelu(piece))
    return codes


def backward_(grad: Tensor, codes: Tensor, bits: int) -> None:
    for piece, part in _pieces(grad, codes, bits):
        levels = unpack_(torch.empty_like(piece, dtype=wide(grad.dtype)), part, bits)
        piece.mul_(levels.mul_(cell(bits)).add_(first(bits)))


def _places(h: Tensor, bits: int) -> Tensor:
    """Where the derivatives lie among the cells: k to k + 1 in cell k."""
    if bits == 2:  # bounds that are evenly spaced in h need no derivative
        return h * (1 / STEP) + 2
    slope: Tensor = torch.ops.aten.gelu_backward(torch.ones_like(h), h)
    return slope.sub_(0.5 - EDGE).mul_(1 / cell(bits))


def _pieces(values: Tensor, codes: Tensor, bits: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Some rows of values with their codes, at a time."""
    both = rows(values.view(-1), ROW), rows(codes, ROW * bits // 8)
    for of_values, of_codes in zip(*both, strict=True):
        if of_values.numel():
            pieces = (torch.split(part, rows_at_once(ROW)) for part in (of_values, of_codes))
            yield from zip(*pieces, strict=True)
