"""Codes on the GPU: a program holds whole groups, so that their range and their codes are one pass.

fp64 is the definition's.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from actprune_kernels.codes import EPSILON, LEAST, NOTHING, TINY, in_memory, naive, width
from actprune_kernels.launch import launch

_TILE = 2048  # values that a program holds
_LEAST, _NOTHING = tl.constexpr(LEAST), tl.constexpr(NOTHING)
_TINY, _EPSILON = tl.constexpr(TINY), tl.constexpr(EPSILON)
_OVERFLOW = tl.constexpr(65520.0)  # from here on fp16 rounds to infinity
_NAN = tl.constexpr(0x7E00)  # of fp16


@triton.jit
def bf16(x):
    """The bits of the nearest bf16, which Triton's interpreter would truncate to."""
    bits = x.to(tl.int32, bitcast=True)
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


@triton.jit
def widened(bits):
    """The fp32 of bf16's bits."""
    return (bits << 16).to(tl.float32, bitcast=True)


@triton.jit
def grid_of_8(low, high):
    """(bias, 1 / scale, scale) of groups from low to high in 8 bits."""
    size = high - low
    divisor = tl.where(size < _LEAST, tl.maximum(size, 256 * _TINY), size + _EPSILON)
    inverse = tl.div_rn(tl.full(size.shape, 255, tl.float32), divisor)
    scale = tl.div_rn(size, tl.full(size.shape, 255, tl.float32))
    return low, inverse, tl.where(size < float("inf"), scale, float("nan"))


@triton.jit
def grid_of(low, high, last: tl.constexpr):
    """(bias, 1 / scale, both as they are stored) of groups from low to high in 2 or 4 bits."""
    levels = tl.full(low.shape, last, tl.float32)
    over = tl.abs(low) >= _OVERFLOW
    bias = tl.where(over, 0, low).to(tl.float16)
    largest = tl.maximum(-low, high)
    over = over | (tl.div_rn(high - bias.to(tl.float32), levels) >= _OVERFLOW)
    wide = over | ((largest > _NOTHING) & (largest < _LEAST))
    wide_bias = bf16(low)
    stored_bias = tl.where(wide, wide_bias, bias.to(tl.int16, bitcast=True).to(tl.int32))
    bias = tl.where(wide, widened(wide_bias), bias.to(tl.float32))
    size = high - bias
    scale = tl.where(size > 0, tl.div_rn(size, levels), 1)
    wide_scale = bf16(tl.maximum(scale, _TINY))
    scale = tl.where(wide, 1, scale).to(tl.float16)
    scale = tl.where(scale > 0, scale, 1).to(tl.float16)
    stored_scale = tl.where(
        wide, wide_scale | 0x8000, scale.to(tl.int16, bitcast=True).to(tl.int32)
    )
    scale = tl.where(wide, widened(wide_scale), scale.to(tl.float32))
    finite = size < float("inf")
    stored_scale = tl.where(finite, stored_scale, _NAN)
    inverse = tl.div_rn(tl.full(low.shape, 1, tl.float32), scale)
    return bias, inverse, stored_scale, tl.where(finite, stored_bias, _NAN)


@triton.jit
def _pack(
    values, codes, fields, first, rows, count,
    BITS: tl.constexpr, GROUP: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr,
    RAGGED: tl.constexpr,
):  # fmt: skip
    """The rows from `first` to `rows` of values (count,); fields: codes as int16, or fp32."""
    last: tl.constexpr = (1 << BITS) - 1
    per_byte: tl.constexpr = 8 // BITS
    size: tl.constexpr = GROUP // per_byte  # bytes of codes in a row
    width: tl.constexpr = size + (8 if BITS == 8 else 4)
    row = first + tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside, j = row < rows, tl.arange(0, PADDED)
    at = row[:, None] * GROUP + j[None, :]
    live = inside[:, None] & (j < GROUP)[None, :]
    if RAGGED:
        x = tl.load(values + at, mask=live & (at < count), other=0).to(tl.float32)
        x = tl.where(at < count, x, tl.load(values + count - 1).to(tl.float32))
    else:
        x = tl.load(values + at, mask=live, other=0).to(tl.float32)
    wrong = tl.where(tl.abs(x) < float("inf"), 0, 1)
    spoiled = tl.sum(wrong, 1) > 0
    x = tl.where(spoiled[:, None], 0, x)
    if PADDED > GROUP:
        low = tl.min(tl.where(live, x, float("inf")), 1)
        high = tl.max(tl.where(live, x, float("-inf")), 1)
    else:
        low, high = tl.min(x, 1), tl.max(x, 1)
    if BITS == 8:
        bias, inverse, scale = grid_of_8(low, high)
        scale = tl.where(spoiled, float("nan"), scale)
        at = fields + row * (width // 4) + size // 4
        tl.store(at, scale, mask=inside)
        tl.store(at + 1, bias, mask=inside)
    else:
        bias, inverse, stored_scale, stored_bias = grid_of(low, high, last)
        at = fields + row * (width // 2) + size // 2
        tl.store(at, tl.where(spoiled, _NAN, stored_scale).to(tl.int16), mask=inside)
        tl.store(at + 1, tl.where(spoiled, _NAN, stored_bias).to(tl.int16), mask=inside)
    level = (x - bias[:, None]) * inverse[:, None]
    level = tl.minimum(tl.maximum(tl.where(level == level, level, 0), 0), last)
    level = (level + 12582912.0) - 12582912.0  # 1.5 * 2^23: to the nearest, halves to even
    whole = level.to(tl.int32)
    if per_byte > 1:
        shifts = tl.arange(0, per_byte)[None, None, :] * BITS
        whole = tl.sum(tl.reshape(whole, (TILE, PADDED // per_byte, per_byte)) << shifts, 2)
    k = tl.arange(0, PADDED // per_byte)[None, :]
    at = codes + row[:, None] * width + k
    tl.store(at, whole.to(tl.uint8), mask=inside[:, None] & (k < size))


@triton.jit
def _unpack(
    codes, fields, values, first, rows, count,
    BITS: tl.constexpr, GROUP: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr,
    RAGGED: tl.constexpr,
):  # fmt: skip
    """The way back: values (count,) of the rows from `first` to `rows`."""
    last: tl.constexpr = (1 << BITS) - 1
    per_byte: tl.constexpr = 8 // BITS
    size: tl.constexpr = GROUP // per_byte
    width: tl.constexpr = size + (8 if BITS == 8 else 4)
    row = first + tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = row < rows
    if BITS == 8:
        at = fields + row * (width // 4) + size // 4
        scale = tl.load(at, mask=inside, other=0)
        bias = tl.load(at + 1, mask=inside, other=0)
    else:
        at = fields + row * (width // 2) + size // 2
        scale = tl.load(at, mask=inside, other=0)
        bias = tl.load(at + 1, mask=inside, other=0)
        wide = scale < 0
        wide_scale = widened((scale & 0x7FFF).to(tl.int32))
        wide_bias = widened(bias.to(tl.int32))
        scale = tl.where(wide, 0, scale).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
        bias = tl.where(wide, 0, bias).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
        scale, bias = tl.where(wide, wide_scale, scale), tl.where(wide, wide_bias, bias)
    k = tl.arange(0, PADDED // per_byte)[None, :]
    live = inside[:, None] & (k < size)
    level = tl.load(codes + row[:, None] * width + k, mask=live, other=0).to(tl.int32)
    if per_byte > 1:
        shifts = tl.arange(0, per_byte)[None, None, :] * BITS
        level = tl.reshape((level[:, :, None] >> shifts) & last, (TILE, PADDED))
    x = level.to(tl.float32) * scale[:, None] + bias[:, None]
    j = tl.arange(0, PADDED)[None, :]
    at = row[:, None] * GROUP + j
    live = inside[:, None] & (j < GROUP)
    if RAGGED:
        live = live & (at < count)
    tl.store(values + at, x.to(values.dtype.element_ty), mask=live)


@triton.jit
def _pack_bits(mask, whole, count, TILE: tl.constexpr):
    """Bytes (⌈count / 8⌉,) of a mask (count,) of bytes that are 0 or 1."""
    start = tl.program_id(0).to(tl.int64) * TILE
    at = start * 8 + tl.arange(0, TILE * 8)
    bits = tl.load(mask + at, mask=at < count, other=0).to(tl.int32)
    bits = tl.sum(tl.reshape(bits, (TILE, 8)) << tl.arange(0, 8)[None, :], 1)
    byte = start + tl.arange(0, TILE)
    tl.store(whole + byte, bits.to(tl.uint8), mask=byte * 8 < count)


@triton.jit
def _unpack_bits(whole, mask, count, TILE: tl.constexpr):
    """The way back: a mask (count,)."""
    start = tl.program_id(0).to(tl.int64) * TILE
    byte = start + tl.arange(0, TILE)
    bits = tl.load(whole + byte, mask=byte * 8 < count, other=0).to(tl.int32)
    bits = tl.reshape((bits[:, None] >> tl.arange(0, 8)[None, :]) & 1, (TILE * 8,))
    at = start * 8 + tl.arange(0, TILE * 8)
    tl.store(mask + at, bits.to(tl.uint8), mask=at < count)


def pack(x: Tensor, bits: int, group: int) -> Tensor:
    if x.dtype == torch.float64:
        return naive.pack(x, bits, group)
    flat = in_memory(x)
    codes = flat.new_empty(-(-len(flat) // group), width(bits, group), dtype=torch.uint8)
    _launch(_pack, (flat, codes, _fields(codes, bits)), bits, group, len(flat))
    return codes


def unpack(
    codes: Tensor, bits: int, group: int, n: int, dtype: torch.dtype, out: Tensor | None = None
) -> Tensor:
    if dtype == torch.float64:
        return naive.unpack(codes, bits, group, n, dtype, out)
    values = codes.new_empty(n, dtype=dtype) if out is None else out
    _launch(_unpack, (codes, _fields(codes, bits), values), bits, group, n)
    return values


def _fields(codes: Tensor, bits: int) -> Tensor:
    return codes.view(torch.float32 if bits == 8 else torch.int16)


def _launch(
    kernel: triton.JITFunction, operands: tuple[Any, ...], bits: int, group: int, n: int
) -> None:
    """First the whole groups, whose loads and stores need no mask within a row; then the rest."""
    padded = triton.next_power_of_2(group)
    tile = _TILE // padded
    sizes = {"BITS": bits, "GROUP": group, "PADDED": padded, "TILE": tile}
    whole = n // group
    launch(kernel, (triton.cdiv(whole, tile),), *operands, 0, whole, n, **sizes, RAGGED=False)
    if n % group:
        launch(kernel, (1,), *operands, whole, whole + 1, n, **sizes, RAGGED=True)


def pack_bits(mask: Tensor) -> Tensor:
    flat = in_memory(mask).view(torch.uint8)
    whole = flat.new_empty(-(-len(flat) // 8))
    launch(
        _pack_bits, (triton.cdiv(len(whole), _TILE // 8),), flat, whole, len(flat), TILE=_TILE // 8
    )
    return whole


def unpack_bits(whole: Tensor, n: int) -> Tensor:
    mask = whole.new_empty(n)
    launch(_unpack_bits, (triton.cdiv(n, _TILE),), whole, mask, n, TILE=_TILE // 8)
    return mask.view(torch.bool)


def pack_two(x: Tensor) -> tuple[Tensor, Tensor] | None:
    found = naive.second_of_two(x)
    return None if found is None else (pack_bits(found[0]), found[1])


def unpack_two(whole: Tensor, ends: Tensor, n: int) -> Tensor:
    return naive.chosen(unpack_bits(whole, n), ends)
