"""GELU and SiLU on the GPU: one pass that reads h and writes it and its codes; fp64 is the
definition's."""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from actprune_kernels.gelu import EDGES, ROW, STEPS, cell, first, naive
from actprune_kernels.launch import launch

_ROW = tl.constexpr(ROW)
_SQRT_HALF = tl.constexpr(math.sqrt(0.5))
_PEAK = tl.constexpr(1 / math.sqrt(2 * math.pi))


@triton.jit
def element(row, place, j, width, span, RAGGED: tl.constexpr):
    """Where element `j` of the part `place` of the row lies, and whether there is one."""
    at = place * span + j
    live = (j < span) & (at < width) if RAGGED else j < span
    return row * _ROW + at, live


@triton.jit
def _forward(
    h, codes, start, width, span,
    WRITES: tl.constexpr, SILU: tl.constexpr,
    LOW: tl.constexpr, PER_CELL: tl.constexpr, PER_STEP: tl.constexpr,
    BITS: tl.constexpr, SPAN: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """Rows from `start` of h, and of codes (span,) each; h becomes the function's values if it
    WRITES."""
    last: tl.constexpr = (1 << BITS) - 1
    row = start + tl.program_id(0).to(tl.int64)
    whole = tl.zeros((SPAN,), tl.int32)
    j = tl.arange(0, SPAN)
    for place in tl.static_range(8 // BITS):
        at, live = element(row, place, j, width, span, RAGGED)
        x = tl.load(h + at, mask=live, other=0).to(tl.float32)
        if SILU:
            share = tl.sigmoid(x)
            density = share * (1 - share)
        else:
            share = 0.5 * (1 + tl.erf(x * _SQRT_HALF))
            density = tl.exp(-0.5 * x * x) * _PEAK
        if BITS == 2:  # bounds that are evenly spaced in h need no derivative
            cells = x * PER_STEP + 2
        else:
            cells = (share + tl.where(density == 0, 0, x * density) - LOW) * PER_CELL
        cells = tl.minimum(tl.maximum(tl.where(cells == cells, cells, 0), 0), last)
        whole |= tl.where(live, cells.to(tl.int32) << (place * BITS), 0)
        if WRITES:
            tl.store(h + at, (x * share).to(h.dtype.element_ty), mask=live)
    tl.store(codes + row * (_ROW * BITS // 8) + j, whole.to(tl.uint8), mask=j < span)


@triton.jit
def _backward(
    grad, codes, start, width, span,
    CELL: tl.constexpr, FIRST: tl.constexpr,
    BITS: tl.constexpr, SPAN: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """Rows from `start` of grad become themselves times their levels."""
    row = start + tl.program_id(0).to(tl.int64)
    j = tl.arange(0, SPAN)
    whole = tl.load(codes + row * (_ROW * BITS // 8) + j, mask=j < span, other=0).to(tl.int32)
    for place in tl.static_range(8 // BITS):
        at, live = element(row, place, j, width, span, RAGGED)
        level = ((whole >> (place * BITS)) & ((1 << BITS) - 1)).to(tl.float32) * CELL + FIRST
        x = tl.load(grad + at, mask=live, other=0).to(tl.float32) * level
        tl.store(grad + at, x.to(grad.dtype.element_ty), mask=live)


def forward_(h: Tensor, bits: int, name: str = "gelu") -> Tensor:
    if h.dtype == torch.float64:
        return naive.forward_(h, bits, name)
    return _codes(h, bits, name, writes=True)


def derivative_codes(h: Tensor, bits: int, name: str = "gelu") -> Tensor:
    if h.dtype == torch.float64:
        return naive.derivative_codes(h, bits, name)
    return _codes(h, bits, name, writes=False)


def _codes(h: Tensor, bits: int, name: str, *, writes: bool) -> Tensor:
    codes = h.new_empty(-(-h.numel() * bits // 8), dtype=torch.uint8)
    sizes = {
        "LOW": 0.5 - EDGES[name],
        "PER_CELL": 1 / cell(bits, name),
        "PER_STEP": 1 / STEPS[name],
    }
    _launch(_forward, h, codes, bits, WRITES=writes, SILU=name == "silu", **sizes)
    return codes


def backward_(grad: Tensor, codes: Tensor, bits: int, name: str = "gelu") -> None:
    if grad.dtype == torch.float64:
        naive.backward_(grad, codes, bits, name)
    else:
        _launch(_backward, grad, codes, bits, CELL=cell(bits, name), FIRST=first(bits, name))


def _launch(
    kernel: triton.JITFunction, values: Tensor, codes: Tensor, bits: int, **constants: Any
) -> None:
    """First the whole rows, whose loads and stores need no mask; then the rest."""
    whole, rest = divmod(values.numel(), ROW)
    span = ROW * bits // 8
    constants |= {"BITS": bits, "SPAN": span, "num_warps": span // 256}
    launch(kernel, (whole,), values, codes, 0, ROW, span, **constants, RAGGED=False)
    if rest:
        short = -(-rest * bits // 8)
        launch(kernel, (1,), values, codes, whole, rest, short, **constants, RAGGED=True)
