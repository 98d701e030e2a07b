"""Codes of whole tensors: the definition."""

import torch
import torch.nn.functional as F
from torch import Tensor

from actprune_kernels.codes import EPSILON, LEAST, NOTHING, PATTERNS, TINY, in_memory


def pack(x: Tensor, bits: int, group: int) -> Tensor:
    return pack_rows(groups(in_memory(x), group).float(), bits)


def groups(flat: Tensor, group: int) -> Tensor:
    """(rows, group): the last group repeats its last value."""
    return torch.cat([flat, flat[-1:].expand(-len(flat) % group)]).view(-1, group)


def pack_rows(values: Tensor, bits: int) -> Tensor:
    """The codes of groups (rows, group) fp32."""
    last = (1 << bits) - 1
    bias, inverse, fields = (_fp32_levels if bits == 8 else _levels)(
        values.amin(1), values.amax(1), last
    )
    codes = ((values - bias[:, None]) * inverse[:, None]).round_().nan_to_num_(0).clamp_(0, last)
    return torch.cat([joined(codes.to(torch.uint8), bits), fields.view(torch.uint8)], 1)


def _fp32_levels(low: Tensor, high: Tensor, last: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of 8 bits: bias and 1 / scale, and the row's last bytes."""
    size = high - low
    scale = torch.where(size.isfinite(), size / last, torch.nan)
    divisor = torch.where(size < LEAST, size.clamp(min=256 * TINY), size + EPSILON)
    inverse = torch.full_like(size, last) / divisor  # a number divided would be a reciprocal's
    return low, inverse, torch.stack([scale, low], 1)


def _levels(low: Tensor, high: Tensor, last: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of 2 and 4 bits: bias and 1 / scale as they are stored, and the row's last bytes."""
    wide = is_wide(low, high, last)
    bias = torch.where(wide, low.bfloat16().float(), low.half().float())
    size = high - bias
    scale = torch.where(size > 0, size / last, 1)
    narrow = scale.half().float()
    narrow = torch.where(narrow > 0, narrow, 1)
    scale = torch.where(wide, scale.clamp(min=TINY).bfloat16().float(), narrow)
    fp16 = torch.stack([scale, bias], 1).half().view(torch.int16)
    bf16 = torch.stack([-scale, bias], 1).bfloat16().view(torch.int16)
    fields = torch.where(wide[:, None], bf16, fp16)
    none = torch.tensor(torch.nan, dtype=torch.half).view(torch.int16)
    finite = size.isfinite()[:, None]
    return bias, 1 / scale, torch.where(finite, fields, none)


def is_wide(low: Tensor, high: Tensor, last: int) -> Tensor:
    """Which groups have scale and bias in bf16, or are not finite."""
    largest, scale = torch.maximum(-low, high), (high - low.half().float()) / last
    return (largest > NOTHING) & (largest < LEAST) | ~scale.half().isfinite()


def unpack(
    codes: Tensor, bits: int, group: int, n: int, dtype: torch.dtype, out: Tensor | None = None
) -> Tensor:
    values = unpack_rows(codes, bits).view(-1)[:n].to(dtype)
    return values if out is None else out.copy_(values)


def unpack_rows(codes: Tensor, bits: int) -> Tensor:
    """The groups (rows, group) fp32 of whole rows."""
    if bits == 8:
        codes, fields = codes[:, :-8], codes[:, -8:].contiguous().view(torch.float32)
    else:
        codes, halves = codes[:, :-4], codes[:, -4:].contiguous().view(torch.int16)
        bf16 = halves.view(torch.bfloat16).float()
        wide = halves[:, :1] < 0
        fields = torch.where(wide, bf16 * bf16.new_tensor([-1, 1]), halves.view(torch.half).float())
    return separated(codes, bits) * fields[:, :1] + fields[:, 1:]


def joined(codes: Tensor, bits: int) -> Tensor:
    """(rows, n) uint8 codes as bytes (rows, n · bits / 8), the first in the lowest bits."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)
    parts = codes.view(len(codes), codes.shape[1] * bits // 8, 8 // bits)
    return (parts << shifts).sum(2, dtype=torch.uint8)


def separated(whole: Tensor, bits: int) -> Tensor:
    """The codes (rows, n) of bytes (rows, n · bits / 8)."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=whole.device)
    return (whole[:, :, None] >> shifts & ((1 << bits) - 1)).flatten(1)


def pack_bits(mask: Tensor) -> Tensor:
    flat = in_memory(mask)
    return joined(F.pad(flat, (0, -len(flat) % 8)).view(1, -1).byte(), 1).view(-1)


def unpack_bits(whole: Tensor, n: int) -> Tensor:
    return separated(whole.view(1, -1), 1).view(-1)[:n].bool()


def pack_two(x: Tensor) -> tuple[Tensor, Tensor] | None:
    found = second_of_two(x)
    return None if found is None else (pack_bits(found[0]), found[1])


def second_of_two(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Where x (n,) is not its first value, and its two values (2,); None where it has more."""
    patterns = in_memory(x).view(PATTERNS[x.dtype.itemsize])
    for some in (patterns[:64], patterns):  # a look at a few first
        low, high = torch.aminmax(some)
        if not bool(((some == low) | (some == high)).all()):
            return None
    first = patterns[0]
    ends = torch.stack([first, torch.where(first == low, high, low)])
    return patterns != first, ends.view(x.dtype)


def unpack_two(whole: Tensor, ends: Tensor, n: int) -> Tensor:
    return chosen(unpack_bits(whole, n), ends)


def chosen(mask: Tensor, ends: Tensor) -> Tensor:
    """The second of two values (2,) where `mask` is, the first elsewhere; bit by bit."""
    first, second = ends.view(PATTERNS[ends.dtype.itemsize])
    return torch.where(mask, second, first).view(ends.dtype)
