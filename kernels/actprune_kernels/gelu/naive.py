"""GELU and its quantised derivative in whole tensors: the definition."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.gelu import CELL, EDGE, LEVELS
from actprune_kernels.sizes import wide


def forward_(h: Tensor) -> Tensor:
    codes = quantised(derivative(h.view(-1).to(wide(h.dtype))))
    h.copy_(F.gelu(h))
    return packed(codes)


def backward_(grad: Tensor, codes: Tensor) -> None:
    levels = torch.tensor(LEVELS, dtype=wide(grad.dtype), device=grad.device)
    grad.mul_(levels[unpacked(codes, grad.numel()).long()].view_as(grad))


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
    a, b, c, d = F.pad(codes, (0, -len(codes) % 4)).view(-1, 4).unbind(1)
    return a | b << 2 | c << 4 | d << 6


def unpacked(codes: Tensor, count: int) -> Tensor:
    """The first `count` codes."""
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8, device=codes.device)
    return (codes[:, None] >> shifts & 3).view(-1)[:count]
