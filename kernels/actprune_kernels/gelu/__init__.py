"""GELU that keeps 2 or 4 bits for its backward pass: the nearest of so many levels of its slope.

GELU(h) = h Φ(h) has the derivative Φ(h) + h φ(h), which lies within ±EDGE of a half. The levels are
the middles of equal cells of that range, so no derivative is off by more than half a cell. (The
like, with other levels: Yang et al. 2024, ReGELU2, arXiv 2406.16282.)

Every backend exports
forward_(h, bits) -> codes: h, contiguous, becomes GELU(h); codes (⌈n · bits / 8⌉,) uint8: h as
    rows of ROW elements, each packed as in actprune_kernels.quantization, and the rest as one more
backward_(grad, codes, bits): grad, contiguous, becomes grad times the levels
"""

from importlib import import_module
from math import e, erf, pi, sqrt
from types import ModuleType

import torch
from torch import Tensor

BITS = (2, 4)
EDGE = 0.5 * erf(1) + 1 / (e * sqrt(pi))
"""How far the derivative gets from a half: at h = ±√2, where its own derivative is zero."""
STEP = 0.41742740896540403
"""In 2 bits the derivative passes from cell to cell at -STEP, 0 and STEP, once at each: it rises
between ±√2 and stays within the outer cells beyond."""
ROW = 1024


def cell(bits: int) -> float:
    """How far the levels lie apart."""
    return 2 * EDGE / (1 << bits)


def first(bits: int) -> float:
    """The lowest level."""
    return 0.5 - EDGE + cell(bits) / 2


def rows(flat: Tensor, size: int) -> list[Tensor]:
    """A flat tensor as rows of `size`, and the rest as one more row: views."""
    whole = len(flat) // size * size
    return [flat[:whole].view(-1, size), flat[whole:].view(1, -1)]


def backend(device: torch.device) -> ModuleType:
    """The module that serves `device`: the fast one of the CPU, elsewhere the definition."""
    return import_module(f"{__name__}.{'cpu' if device.type == 'cpu' else 'naive'}")
