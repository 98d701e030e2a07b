"""GELU, SiLU and their quantised derivatives in whole tensors: the definition."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.gelu import EDGES, ROW, cell, first, rows
from actprune_kernels.quantization import naive as quantization
from actprune_kernels.sizes import wide


def forward_(h: Tensor, bits: int, name: str = "gelu") -> Tensor:
    codes = derivative_codes(h, bits, name)
    h.copy_(F.gelu(h) if name == "gelu" else F.silu(h))
    return codes


def derivative_codes(h: Tensor, bits: int, name: str = "gelu") -> Tensor:
    return packed(quantised(derivative(h.view(-1).to(wide(h.dtype)), name), bits, name), bits)


def backward_(grad: Tensor, codes: Tensor, bits: int, name: str = "gelu") -> None:
    levels = unpacked(codes, grad.numel(), bits).to(wide(grad.dtype))
    levels = levels * cell(bits, name) + first(bits, name)
    grad.mul_(levels.view_as(grad))


def derivative(h: Tensor, name: str = "gelu") -> Tensor:
    """Of GELU Φ(h) + h φ(h), of SiLU σ(h) + h σ(h) (1 - σ(h)); of ±Inf its limit."""
    if name == "gelu":
        whole = 0.5 * (1 + torch.erf(h / math.sqrt(2)))
        density = torch.exp(-0.5 * h * h) / math.sqrt(2 * math.pi)
    else:
        whole = torch.sigmoid(h)
        density = whole * (1 - whole)
    return whole + torch.where(density == 0, 0, h * density)


def quantised(derivatives: Tensor, bits: int, name: str = "gelu") -> Tensor:
    """The cell of each derivative, from 0; of NaN: 0."""
    cells = torch.floor((derivatives - (0.5 - EDGES[name])) / cell(bits, name))
    return cells.nan_to_num(0).clamp(0, (1 << bits) - 1).to(torch.uint8)


def packed(codes: Tensor, bits: int) -> Tensor:
    """So many codes to a byte as it holds."""
    return torch.cat([quantization.packed(row, 8 // bits).view(-1) for row in rows(codes, ROW)])


def unpacked(codes: Tensor, count: int, bits: int) -> Tensor:
    """The first `count` codes."""
    whole, rest = rows(codes, ROW * bits // 8)
    whole = quantization.unpacked(whole, 8 // bits, ROW)
    rest = quantization.unpacked(rest, 8 // bits, count % ROW)
    return torch.cat([whole.reshape(-1), rest.reshape(-1)])
