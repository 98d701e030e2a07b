"""Blocks of values in fewer bits, each block with a scale of its own.

kind   to a value                   parts
bf16   2 bytes, nearest             values (n, width) bfloat16
fp8    1 byte, nearest              float8_e4m3fn as uint8 (n, width), scales (n,) bfloat16
int8   8 bits, stochastic rounding  codes (n, width) uint8, scales (n,) bfloat16, zeros (n,) uint8
int4   4 bits, the same             codes (n, ⌈width / 2⌉)
int2   2 bits, the same             codes (n, ⌈width / 4⌉)

A code c means (c - zero) * scale: zero is a level of its own, which zeros stay at, and the levels
are spread over the block's range, so a block of one sign does not waste half of them. Rounding is
up with the probability that makes the expectation the value itself (Gupta et al. 2015; ActNN, Chen
et al. 2021, quantises activations so). A byte holds codes that lie ⌈width / per byte⌉ apart, the
first in its lowest bits, so that packing works on contiguous pieces.

A block with a NaN or Inf becomes one without any finite value: its scale is not finite.

Every backend exports
encode(blocks, kind, draw) -> parts: blocks (n, width); draw int64 (3,): seed, stream, counter
decode(parts, kind, width, dtype) -> (n, width), dtype being fp32 or fp64
"""

from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from actprune_kernels.backends import CPU, NAIVE, TRITON, of_any_dtype
from actprune_kernels.sizes import factor

HAS = (NAIVE, CPU, TRITON)
SAME = "same"
"""The kind of values that stay as they are."""
BITS = {"int8": 8, "int4": 4, "int2": 2}
"""Of the kinds that round stochastically."""
KINDS = ("bf16", "fp8", *BITS)
FIELDS = {
    SAME: ("values",),
    "bf16": ("values",),
    "fp8": ("codes", "scales"),
    **dict.fromkeys(BITS, ("codes", "scales", "zeros")),
}
"""The names of a kind's parts."""
LARGEST = 448.0
"""Of float8_e4m3fn."""
TINY = 2.0**-126
"""The least scale, a normal number of bf16."""
FRACTION = 1 << 16
"""Rounding compares with one of so many equally likely fractions."""

Parts = tuple[Tensor, ...]


def backend(device: torch.device, name: str = "auto") -> ModuleType:
    """The module that serves `device`, as backends.of_any_dtype says."""
    return of_any_dtype("quantization", device, name)


def per_byte(kind: str) -> int:
    """Codes to a byte."""
    return 8 // BITS.get(kind, 8)


def empty(like: Tensor, count: int, width: int, kind: str) -> Parts:
    """Uninitialised parts of `count` blocks of `width` values, on the device of `like`."""
    if kind == SAME:
        return (like.new_empty(count, width),)
    if kind == "bf16":
        return (like.new_empty(count, width, dtype=torch.bfloat16),)
    scales = like.new_empty(count, dtype=torch.bfloat16)
    codes = like.new_empty(count, -(-width // per_byte(kind)), dtype=torch.uint8)
    if kind == "fp8":
        return codes, scales
    return codes, scales, like.new_empty(count, dtype=torch.uint8)


def rounding(draw: Tensor) -> np.random.PCG64:
    """The source of the rounding's random bits; the selection's are others."""
    return np.random.PCG64([*(int(part) for part in draw.tolist()), 1])


def fractions(source: np.random.PCG64, count: int, out: Tensor | None = None) -> Tensor:
    """The next `count` fractions times FRACTION, fp32; a multiple of four leaves none unused."""
    words = source.random_raw(-(-count // 4)).view(np.uint16)[:count]
    out = torch.empty(count) if out is None else out
    np.copyto(out.numpy().reshape(-1), words)
    return out


def grid(low: Tensor, high: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Scales and zeros, both of the blocks' dtype, for values from low to high.

    The zero is the level that splits the levels as 0 splits the range, and the scale the smallest
    that then covers both sides.
    """
    last = (1 << BITS[kind]) - 1
    low, high = low.clamp(max=0), high.clamp(min=0)
    zeros = (last * (low / (low - high))).nan_to_num_(0).round_()  # a product may overflow
    zeros = zeros.clamp_((low < 0).to(low.dtype), last - (high > 0).to(low.dtype))
    scales = torch.maximum(high / (last - zeros).clamp(min=1), -low / zeros.clamp(min=1))
    return rounded_up(scales), zeros


def rounded_up(scales: Tensor) -> Tensor:
    """The scales as bf16 will hold them: never less, so that codes reach the ends of the range."""
    return (scales * (1 + 2**-8)).clamp(min=TINY).to(torch.bfloat16).to(scales.dtype)


@dataclass(frozen=True)
class Quantized:
    """Blocks (n, height, width) that are decoded when they are asked for."""

    parts: Parts
    kind: str
    shape: tuple[int, int, int]
    dtype: torch.dtype
    """Of the activation."""

    def __getitem__(self, piece: slice) -> Tensor:
        """Some of the blocks, in the dtype that a product multiplies."""
        height, width = self.shape[1:]
        parts = tuple(part[piece] for part in self.parts)
        decode = backend(parts[0].device).decode
        blocks: Tensor = decode(parts, self.kind, height * width, factor(self.dtype))
        return blocks.view(-1, height, width)

    def flat(self, piece: slice) -> Tensor:
        """Some of all values, in the order of storage; no block is decoded that has none."""
        size = self.shape[1] * self.shape[2]
        first = piece.start // size
        values = self[first : -(-piece.stop // size)].view(-1)
        return values[piece.start - first * size :][: piece.stop - piece.start]


Kept = Tensor | Quantized
"""Blocks as they are, or in fewer bits."""


def dequantized(values: Kept) -> Tensor:
    """All blocks, in the activation's dtype."""
    return values[:].to(values.dtype) if isinstance(values, Quantized) else values
