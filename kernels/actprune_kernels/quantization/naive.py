"""Codes of whole tensors: the definition."""

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.quantization import (
    BITS,
    FRACTION,
    LARGEST,
    Parts,
    fractions,
    grid,
    per_byte,
    rounded_up,
    rounding,
)
from actprune_kernels.sizes import wide


def encode(blocks: Tensor, kind: str, draw: Tensor | None) -> Parts:
    if kind == "bf16":
        return (blocks.to(torch.bfloat16),)
    x = F.pad(blocks.to(wide(blocks.dtype)), (0, 0 if blocks.shape[1] else 1))
    if kind == "fp8":
        scales = rounded_up(x.abs().amax(1) / LARGEST)
        codes = (x / scales[:, None]).to(torch.float8_e4m3fn)
        return codes[:, : blocks.shape[1]].view(torch.uint8), scales.to(torch.bfloat16)
    assert draw is not None
    scales, zeros = grid(x.amin(1), x.amax(1), kind)
    up = fractions(rounding(draw), blocks.numel()).to(x.device).view(blocks.shape) / FRACTION
    levels = (zeros[:, None] + x * (1 / scales)[:, None] + up).nan_to_num(0)
    codes = packed(levels.clamp(0, (1 << BITS[kind]) - 1).to(torch.uint8), per_byte(kind))
    return codes, scales.to(torch.bfloat16), zeros.to(torch.uint8)


def decode(parts: Parts, kind: str, width: int, dtype: torch.dtype) -> Tensor:
    if kind == "bf16":
        (values,) = parts
        return values.to(dtype)
    codes, scales, *zeros = parts
    if kind == "fp8":
        levels = codes.view(torch.float8_e4m3fn).to(dtype)
    else:
        levels = unpacked(codes, per_byte(kind), width).to(dtype) - zeros[0].to(dtype)[:, None]
    return levels * scales.to(dtype)[:, None]


def packed(codes: Tensor, count: int) -> Tensor:
    """`count` codes to a byte, (n, width) to (n, ⌈width / count⌉), as the package says."""
    pieces = F.pad(codes, (0, -codes.shape[1] % count)).chunk(count, 1)
    whole = torch.zeros_like(pieces[0])
    for place, piece in enumerate(pieces):
        whole |= piece << (place * 8 // count)
    return whole


def unpacked(whole: Tensor, count: int, width: int) -> Tensor:
    """(n, width) codes out of bytes that hold `count` each."""
    bits = 8 // count
    pieces = [whole >> (place * bits) & ((1 << bits) - 1) for place in range(count)]
    return torch.cat(pieces, 1)[:, :width]
