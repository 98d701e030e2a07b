"""GELU and SiLU that keep 2 or 4 bits for their backward pass: the nearest of so many levels of
their slope.

GELU(h) = h Φ(h) has the derivative Φ(h) + h φ(h), SiLU(h) = h σ(h) has σ(h) + h σ(h) (1 - σ(h)).
Each lies within ±EDGES of a half. The levels are the middles of equal cells of that range, so no
derivative is off by more than half a cell. (The like, with other levels: Yang et al. 2024, ReGELU2
and ReSiLU2, arXiv 2406.16282.)

Every backend exports, `name` being one of NAMES
forward_(h, bits, name="gelu") -> codes: h, contiguous, becomes GELU(h); codes (⌈n · bits / 8⌉,)
    uint8: h as rows of ROW elements, each packed as in actprune_kernels.quantization, and the rest
    as one more
derivative_codes(h, bits, name="gelu") -> codes: the same of h, which stays as it is
backward_(grad, codes, bits, name="gelu"): grad, contiguous, becomes grad times the levels
"""

from contextlib import suppress
from math import e, erf, pi, sqrt
from types import ModuleType

import torch
from torch import Tensor

from actprune_kernels.backends import CPU, NAIVE, TRITON, kernels, of_any_dtype

HAS = (NAIVE, CPU, TRITON)
BITS = (2, 4)
EDGES = {"gelu": 0.5 * erf(1) + 1 / (e * sqrt(pi)), "silu": 0.599839320128867}
"""How far the derivative gets from a half: GELU's at h = ±√2, SiLU's at h = ±2.3993572805154670,
where its own derivative is zero."""
NAMES = tuple(EDGES)
STEPS = {"gelu": 0.41742740896540403, "silu": 0.6412116033472148}
"""In 2 bits the derivative passes from cell to cell at -STEP, 0 and STEP, once at each: it rises
between its extremes and stays within the outer cells beyond."""
ROW = 1024


def cell(bits: int, name: str = "gelu") -> float:
    """How far the levels lie apart."""
    return 2 * EDGES[name] / (1 << bits)


def first(bits: int, name: str = "gelu") -> float:
    """The lowest level."""
    return 0.5 - EDGES[name] + cell(bits, name) / 2


def rows(flat: Tensor, size: int) -> list[Tensor]:
    """A flat tensor as rows of `size`, and the rest as one more row: views."""
    whole = len(flat) // size * size
    return [flat[:whole].view(-1, size), flat[whole:].view(1, -1)]


def backend(device: torch.device, name: str = "auto") -> ModuleType:
    """The module that serves `device`, whatever the dtype.

    name: a backend; `auto` is the fast one of the CPU and of CUDA, elsewhere the definition, and so
    on CUDA where Triton cannot run. Raises ValueError where a backend that is named cannot.
    """
    if name == "auto":
        with suppress(ValueError):
            return of_any_dtype("gelu", device)
        name = "naive"
    return kernels("gelu", name, device, torch.float32)
