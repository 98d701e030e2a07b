"""By FBGEMM's operators; the rare groups that these do not code as the definition does, by that."""

from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actprune_kernels.chunked import slices
from actprune_kernels.codes import LEAST, in_memory, naive, width
from actprune_kernels.sizes import rows_at_once

_OPERATORS = {2: "embedding_bag_2bit", 4: "embedding_bag_4bit", 8: "embedding_bag_byte"}


def pack(x: Tensor, bits: int, group: int) -> Tensor:
    flat = in_memory(x)
    whole = len(flat) // group
    groups = flat[: whole * group].view(-1, group)
    if len(flat) % group == 0 and x.dtype == torch.float32:
        return _pack_rows(groups, bits)
    codes = torch.empty(-(-len(flat) // group), width(bits, group), dtype=torch.uint8)
    for piece in slices(whole, rows_at_once(group)):
        codes[piece] = _pack_rows(groups[piece].float(), bits)
    codes[whole:] = naive.pack(flat[whole * group :], bits, group)
    return codes


def _pack_rows(groups: Tensor, bits: int) -> Tensor:
    """The rows of groups (rows, group) fp32."""
    codes: Tensor = getattr(torch.ops.quantized, f"{_OPERATORS[bits]}_prepack")(groups)
    if len(groups) and not (_ordinary(groups, codes, bits) and isfinite(groups.sum().item())):
        odd = _odd(groups.amin(1), groups.amax(1), bits) | ~groups.sum(1).isfinite()
        for rows in torch.split(odd.nonzero().view(-1), rows_at_once(groups.shape[1])):
            codes[rows] = naive.pack_rows(groups[rows], bits)
    return codes


def _ordinary(groups: Tensor, codes: Tensor, bits: int) -> bool:
    """Whether no scale or bias is one of a group that FBGEMM may code otherwise. It passes over a
    NaN, which shows in a sum alone."""
    if bits == 8:
        ends = _ends(codes, 8, np.float32)
        return bool(ends[:, 0].min() >= 2 * LEAST / 255 and np.abs(ends).max() < np.inf)
    # fp16, whose bits are in the order of the numbers; a least value that is not finite shows in
    # the scale as well
    scales = _ends(codes, 4, np.int16)[:, 0].copy()
    if scales.min() < 0x0400 or scales.max() > 0x7BFF:
        return False
    constant = scales == 0x3C00  # such a group's scale is 1
    if not constant.any():
        return True
    tiny = constant & (_ends(codes, 4, np.int16)[:, 1] & 0x7FFF < 0x0400)
    return not tiny.any() or not bool(groups[torch.from_numpy(tiny)].any())


def _ends(codes: Tensor, count: int, dtype: type[np.generic]) -> "np.ndarray[Any, Any]":
    """The last bytes of each row."""
    if codes.shape[1] % 4:
        return np.ascontiguousarray(codes.numpy()[:, -count:]).view(dtype)
    words = codes.numpy().view(np.int32)[:, -count // 4 :].copy()  # a quarter of the elements
    return words.view(dtype)


def _odd(low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Which groups FBGEMM does not code as the definition does."""
    if bits != 8:
        # or low rounds up past high, for a scale below none
        return naive.is_wide(low, high, (1 << bits) - 1) | (low.half().float() > high)
    size = high - low
    return ~((size == 0) | (size >= LEAST) & size.isfinite())


def unpack(
    codes: Tensor, bits: int, group: int, n: int, dtype: torch.dtype, out: Tensor | None = None
) -> Tensor:
    if out is None and dtype == torch.float32:
        return _unpack_rows(codes, bits).view(-1)[:n]
    values = torch.empty(n, dtype=dtype) if out is None else out
    whole, step = n // group, rows_at_once(group)
    groups = values[: whole * group].view(-1, group)
    for piece in slices(whole, step):
        groups[piece] = _unpack_rows(codes[piece], bits)
    values[whole * group :] = naive.unpack_rows(codes[whole:], bits).view(-1)[: n % group]
    return values


def _unpack_rows(codes: Tensor, bits: int) -> Tensor:
    """The groups (rows, group) fp32 that the rows `codes` hold."""
    groups: Tensor = getattr(torch.ops.quantized, f"{_OPERATORS[bits]}_unpack")(codes)
    if bits != 8 and len(codes):
        scales = _ends(codes, 4, np.int16)[:, 0]
        if scales.min() < 0:
            wide = torch.from_numpy(scales < 0)
            groups[wide] = naive.unpack_rows(codes[wide], bits)
    return groups


def pack_bits(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(in_memory(mask).numpy(), bitorder="little"))


def unpack_bits(whole: Tensor, n: int) -> Tensor:
    bits = np.unpackbits(whole.numpy(), count=n, bitorder="little")
    return torch.from_numpy(bits).view(torch.bool)
