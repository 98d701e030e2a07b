"""Tensors in few bits, each value rounded to the nearest of its group's levels; booleans in bits.

A tensor is coded in the order of its memory, in groups of 32 to 128 values; the last group repeats
its last value. A group of range low..high has the levels bias + code * scale with codes of `bits`
bits, bias being low and scale (high - low) / (2 ** bits - 1). A row holds a group as torch's FBGEMM
operators lay it out (quantized::embedding_bag_4bit_prepack and the like):

bits   codes                       then
2, 4   group · bits / 8 bytes      scale and bias, fp16
8      group bytes                 scale and bias, fp32

The first code of a byte lies in its lowest bits. Levels are computed from scale and bias as they
are stored, so that a value is off by half a step and what their rounding costs: of fp16, 2**-10 of
the group's largest magnitude or 2**-21. A group's least value is exact where fp16 holds it: zero.

Where fp16 would overflow, or lose its precision as the largest magnitude is under 2**-14, scale and
bias are bf16 (2**-7), and the sign of the scale, which no other has, says so; groups up to 2**-62
become zeros. A group with a NaN or Inf, or whose range overflows fp32, becomes one without any
finite value: its scale is NaN.

Every backend exports
pack(x, bits, group) -> codes (⌈n / group⌉, width) uint8: x without gaps in memory, of any floating
    dtype; group a multiple of 8
unpack(codes, bits, group, n, dtype, out=None) -> (n,), in the order of x's memory, in `out` where
    it is given
pack_bits(mask) -> (⌈n / 8⌉,) uint8: mask bool, without gaps; the first in the lowest bit
unpack_bits(whole, n) -> (n,) bool
pack_two(x) -> (pack_bits of where x is not its first value, its two values (2,)); None where it has
    more. x not empty, without gaps, of any dtype of whole bytes. Values are patterns of bits: 0.0
    is not -0.0, and a NaN is itself. On CUDA this waits for the data.
unpack_two(whole, ends, n) -> (n,) of the two values `ends`, exactly what it was
"""

from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from actprune_kernels.backends import CPU, NAIVE, TRITON, of_any_dtype
from actprune_kernels.sizes import index_dtype

HAS = (NAIVE, CPU, TRITON)
BITS = (2, 4, 8)
LEAST = 2.0**-14
"""The least normal number of fp16."""
NOTHING = 2.0**-62
"""A group of values up to that becomes zeros; its square is still a normal number of fp32."""
PATTERNS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers to compare values by their bits, by the bytes of a value."""
TINY = 2.0**-126
"""The least normal number of bf16."""
EPSILON = 1e-8
"""What FBGEMM adds to the range of 8-bit groups before it divides by it; ours does from a range of
LEAST on, where it shifts no value by more than a twentieth of a step."""


@lru_cache(maxsize=64)
def backend(device: torch.device, name: str = "auto") -> ModuleType:
    """The module that serves `device`, as backends.of_any_dtype says."""
    return of_any_dtype("codes", device, name)


def width(bits: int, group: int) -> int:
    """Bytes of a row."""
    return group * bits // 8 + (8 if bits == 8 else 4)


def in_memory(x: Tensor) -> Tensor:
    """All elements of `x` in the order of its memory: a view (n,), without x's gradient.

    Raises ValueError where elements overlap, or something lies between them.
    """
    if x.is_contiguous():
        return x.detach() if x.dim() == 1 else x.detach().view(-1)
    if not torch.ops.aten.is_non_overlapping_and_dense(x):
        raise ValueError(
            "x: expected a tensor without gaps in memory, "
            f"got shape {tuple(x.shape)} with strides {x.stride()}"
        )
    return x.detach().as_strided((x.numel(),), (1,), x.storage_offset())


def narrow(indices: Tensor) -> Tensor:
    """The same integers in the smallest of uint8, int16, int32 and int64 that holds them all.

    `.to(indices.dtype)` is the way back. On CUDA this waits for the data.
    """
    if not indices.numel():
        return indices
    low, high = (int(end) for end in torch.aminmax(indices))
    dtype = index_dtype(high)
    if low < 0:
        dtype = index_dtype(max(high, -1 - low, 256))  # a signed one
    return indices if dtype.itemsize >= indices.dtype.itemsize else indices.to(dtype)
