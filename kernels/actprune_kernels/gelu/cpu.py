"""Piece by piece, so that the temporaries stay in the cache and add nothing to a peak."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.gelu import EDGES, ROW, STEPS, cell, first, naive, rows
from actprune_kernels.quantization.cpu import pack_, unpack_
from actprune_kernels.quantization.naive import packed
from actprune_kernels.sizes import rows_at_once, wide


def forward_(h: Tensor, bits: int, name: str = "gelu") -> Tensor:
    codes = h.new_empty(-(-h.numel() * bits // 8), dtype=torch.uint8)
    function = F.gelu if name == "gelu" else F.silu
    for piece, part in _pieces(h, codes, bits):
        part.copy_(_coded(piece, bits, name))
        piece.copy_(function(piece))
    return codes


def derivative_codes(h: Tensor, bits: int, name: str = "gelu") -> Tensor:
    codes = h.new_empty(-(-h.numel() * bits // 8), dtype=torch.uint8)
    for piece, part in _pieces(h, codes, bits):
        part.copy_(_coded(piece, bits, name))
    return codes


def backward_(grad: Tensor, codes: Tensor, bits: int, name: str = "gelu") -> None:
    for piece, part in _pieces(grad, codes, bits):
        levels = unpack_(torch.empty_like(piece, dtype=wide(grad.dtype)), part, bits)
        piece.mul_(levels.mul_(cell(bits, name)).add_(first(bits, name)))


def _coded(piece: Tensor, bits: int, name: str) -> Tensor:
    piece = piece.to(wide(piece.dtype))
    whole = pack_(_places(piece, bits, name).clamp_(0, (1 << bits) - 1).floor_(), bits)
    if whole.sum().isnan():  # it would spoil the others of its byte
        return packed(naive.quantised(naive.derivative(piece, name), bits, name), 8 // bits)
    return whole


def _places(h: Tensor, bits: int, name: str) -> Tensor:
    """Where the derivatives lie among the cells: k to k + 1 in cell k."""
    if bits == 2:  # bounds that are evenly spaced in h need no derivative
        return h * (1 / STEPS[name]) + 2
    aten = torch.ops.aten
    derivative = aten.gelu_backward if name == "gelu" else aten.silu_backward
    slope: Tensor = derivative(torch.ones_like(h), h)
    return slope.sub_(0.5 - EDGES[name]).mul_(1 / cell(bits, name))


def _pieces(values: Tensor, codes: Tensor, bits: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Some rows of values with their codes, at a time."""
    both = rows(values.view(-1), ROW), rows(codes, ROW * bits // 8)
    for of_values, of_codes in zip(*both, strict=True):
        if of_values.numel():
            pieces = (torch.split(part, rows_at_once(ROW)) for part in (of_values, of_codes))
            yield from zip(*pieces, strict=True)
