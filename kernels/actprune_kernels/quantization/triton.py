"""Codes on the GPU: a program holds whole blocks, so that their range and their codes are one pass.

bf16 and fp8, which only round, and fp64 are the definition's.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from actprune_kernels.launch import launch
from actprune_kernels.quantization import BITS, TINY, Parts, empty, naive, per_byte

_TILE = 4096  # values that a program holds, but for larger blocks
_ROUNDING = tl.constexpr(0x80000000)  # in the counter's place that no selection reaches
_LEAST = tl.constexpr(TINY)


@triton.jit
def fp8(codes):
    """fp32 values of float8_e4m3fn: as fp16, where the fields fit and exponents differ by 8."""
    bits = codes.to(tl.uint16)
    value = (((bits & 0x80) << 8) | ((bits & 0x7F) << 7)).to(tl.float16, bitcast=True)
    return tl.where((bits & 0x7F) == 0x7F, float("nan"), value.to(tl.float32) * 256)


@triton.jit
def levels(codes, zero, shift, BITS: tl.constexpr):
    """fp32 distances from the zero level of codes that lie `shift` bits up in their bytes."""
    level = (codes.to(tl.int32) >> shift) & ((1 << BITS) - 1)
    return (level - zero.to(tl.int32)).to(tl.float32)


@triton.jit
def _encode(
    blocks, draw, codes, scales, zeros, count, width, span,
    BITS: tl.constexpr, PER: tl.constexpr, TILE: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """Codes (count, span), scales and zeros (count,) of blocks (count, width); TILE a program.

    The draw's random numbers are Philox's, a pure function of draw and index.
    """
    last: tl.constexpr = (1 << BITS) - 1
    block = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    place, j = tl.arange(0, PER)[None, :, None], tl.arange(0, SPAN)[None, None, :]
    element = place * span + j
    live = (block < count)[:, None, None] & (j < span) & (element < width)
    index = block[:, None, None] * width + element
    x = tl.load(blocks + index, mask=live, other=0).to(tl.float32)
    wrong = tl.where(tl.abs(x) < float("inf"), 0, 1)
    spoiled = tl.sum(tl.sum(wrong, 2), 1) > 0
    low = tl.minimum(tl.min(tl.min(x, 2), 1), 0)
    high = tl.maximum(tl.max(tl.max(x, 2), 1), 0)
    size = low - high  # may overflow: then zero is the lowest level that its sign allows
    zero = last * tl.where(size < 0, tl.div_rn(low, tl.where(size < 0, size, 1.0)), 0)
    zero = (zero + 12582912.0) - 12582912.0  # 1.5 * 2^23: to the nearest, halves to even
    zero = tl.minimum(tl.maximum(zero, (low < 0).to(tl.float32)), last - (high > 0).to(tl.float32))
    above, below = tl.maximum(last - zero, 1.0), tl.maximum(zero, 1.0)
    scale = tl.maximum(tl.div_rn(high, above), tl.div_rn(-low, below))
    scale = tl.maximum(scale * 1.00390625, _LEAST)
    bits = scale.to(tl.int32, bitcast=True)  # to bf16, which Triton's interpreter truncates to
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
    scale = bits.to(tl.float32, bitcast=True)
    inverse = tl.div_rn(tl.full((TILE,), 1, tl.float32), scale)
    seed, stream, counter = tl.load(draw), tl.load(draw + 1), tl.load(draw + 2)
    first, second = (index & 0xFFFFFFFF).to(tl.uint32), (index >> 32).to(tl.uint32) | _ROUNDING
    none = first * 0
    bits, _, _, _ = tl.philox(
        seed, first, second, none + stream.to(tl.uint32), none + counter.to(tl.uint32)
    )
    up = (bits >> 8).to(tl.int32).to(tl.float32) * (1.0 / 16777216.0)
    level = x * inverse[:, None, None] + zero[:, None, None] + up
    level = tl.minimum(tl.maximum(tl.where(level == level, level, 0), 0), last)
    whole = tl.sum(tl.where(live, level.to(tl.int32) << (place * BITS), 0), 1)
    j = tl.arange(0, SPAN)[None, :]
    at = block[:, None] * span + j
    tl.store(codes + at, whole.to(tl.uint8), mask=(block < count)[:, None] & (j < span))
    scale = tl.where(spoiled, float("nan"), scale)
    tl.store(scales + block, scale.to(tl.bfloat16), mask=block < count)
    tl.store(zeros + block, zero.to(tl.uint8), mask=block < count)


@triton.jit
def _decode(
    codes, scales, zeros, blocks, count, width, span,
    BITS: tl.constexpr, PER: tl.constexpr, TILE: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """The way back: blocks (count, width)."""
    block = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = block < count
    scale = tl.load(scales + block, mask=inside, other=0)[:, None, None]
    zero = tl.load(zeros + block, mask=inside, other=0)[:, None, None]
    place, j = tl.arange(0, PER)[None, :, None], tl.arange(0, SPAN)[None, None, :]
    live = inside[:, None, None] & (j < span) & (place * span + j < width)
    whole = tl.load(codes + block[:, None, None] * span + j, mask=live, other=0)
    x = levels(whole, zero, place * BITS, BITS) * scale.to(tl.float32)
    at = blocks + block[:, None, None] * width + place * span + j
    tl.store(at, x.to(blocks.dtype.element_ty), mask=live)


def encode(blocks: Tensor, kind: str, draw: Tensor | None) -> Parts:
    count, width = blocks.shape
    if kind not in BITS or blocks.dtype == torch.float64 or not blocks.numel():
        return naive.encode(blocks, kind, draw)
    assert draw is not None
    blocks = blocks.contiguous()
    parts = empty(blocks, count, width, kind)
    draw = draw.to(blocks.device, non_blocking=True)
    _launch(_encode, kind, (blocks, draw, *parts, count, width), parts[0].shape[1])
    return parts


def decode(parts: Parts, kind: str, width: int, dtype: torch.dtype) -> Tensor:
    if kind not in BITS or dtype == torch.float64 or not parts[0].numel():
        return naive.decode(parts, kind, width, dtype)
    parts, count = tuple(part.contiguous() for part in parts), len(parts[0])
    blocks = parts[0].new_empty(count, width, dtype=dtype)
    _launch(_decode, kind, (*parts, blocks, count, width), parts[0].shape[1])
    return blocks


def _launch(kernel: triton.JITFunction, kind: str, operands: tuple[Any, ...], span: int) -> None:
    padded, per = triton.next_power_of_2(span), per_byte(kind)
    tile = max(1, _TILE // (padded * per))
    grid = (triton.cdiv(operands[-2], tile),)
    sizes = {"BITS": BITS[kind], "PER": per, "TILE": tile, "SPAN": padded}
    warps = 16 if padded * per > _TILE else 4
    launch(kernel, grid, *operands, span, num_warps=warps, **sizes)
