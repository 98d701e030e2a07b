"""GELU and its quantised derivative in whole tensors: the definition."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.codes import naive as coding
from actprune_kernels.gelu import CELL, EDGE, FIRST, ROW, rows
from actprune_kernels.sizes import wide


def forward_(h: Tensor) -> Tensor:
    codes = quantised(derivative(h.view(-1).to(wide(h.dtype))))
    h.copy_(F.gelu(h))
    return packed(codes)


def backward_(grad: Tensor, codes: Tensor) -> None:
    levels = unpacked(codes, grad.numel()).to(wide(grad.dtype)) * CELL + FIRST
    grad.mul_(levels.view_as(grad))


def derivative(h: Tensor) -> Tensor:
    """Φ(h) + h φ(h)."""
    phi = torch.exp(-0.5 * h * h) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(h / math.sqrt(2))) + h * phi


def quantised(derivatives: Tensor) -> Tensor:
    """The cell of each derivative, 0 to 3; of NaN: 0."""
    cells = torch.floor((derivatives - (0.5 - EDGE)) / CELL)
    return cells.nan_to_num(0).clamp(0, 3).to(torch.uint8)


def packed(codes: Tensor) -> Tensor:
    """Four codes to a byte."""
    return torch.cat([coding.packed(row, 4).view(-1) for row in rows(codes, ROW)])


def unpacked(codes: Tensor, count: int) -> Tensor:
    """The first `count` codes."""
    whole, rest = rows(codes, ROW // 4)
    parts = coding.unpacked(whole, 4, ROW), coding.unpacked(rest, 4, count % ROW)
    return torch.cat([part.reshape(-1) for part in parts])
