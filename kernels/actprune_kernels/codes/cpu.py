"""By FBGEMM's operators; the rare groups that these do not code as the definition does, by that."""

from math import isfinite

import numpy as np
import torch
from torch import Tensor

from actprune_kernels.chunked import in_chunks
from actprune_kernels.codes import LEAST, PATTERNS, in_memory, naive
from actprune_kernels.sizes import rows_at_once

_PREPACK = {
    2: torch.ops.quantized.embedding_bag_2bit_prepack.default,
    4: torch.ops.quantized.embedding_bag_4bit_prepack.default,
    8: torch.ops.quantized.embedding_bag_byte_prepack.default,
}
_UNPACK = {
    2: torch.ops.quantized.embedding_bag_2bit_unpack.default,
    4: torch.ops.quantized.embedding_bag_4bit_unpack.default,
    8: torch.ops.quantized.embedding_bag_byte_unpack.default,
}
_ONE, _INF, _NORMAL = 0x3C00, 0x7C00, 0x0400
"""Bits of fp16: 1, infinity, and the least normal number; negative numbers come after."""
_DOUBTFUL = np.ones(1 << 16, dtype=np.bool_)
"""By the bits of a group's scale, whether FBGEMM may code it otherwise: a constant's scale is 1."""
_DOUBTFUL[_NORMAL:_INF] = False
_DOUBTFUL[_ONE] = True
_BITS_OF_BYTES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_AT_ONCE = 1 << 16
"""Elements to look at together for two values, so that they stay in the cache."""


def pack(x: Tensor, bits: int, group: int) -> Tensor:
    flat = in_memory(x)
    if x.dtype == torch.float32 and not len(flat) % group:
        return _pack_rows(flat.view(-1, group), bits)

    def packed(rows: slice) -> tuple[Tensor]:
        some = flat[rows.start * group : rows.stop * group]
        some = naive.groups(some, group) if len(some) % group else some.view(-1, group)
        return (_pack_rows(some.float(), bits),)

    return in_chunks(packed, -(-len(flat) // group), rows_at_once(group))[0]


def _pack_rows(groups: Tensor, bits: int) -> Tensor:
    """The rows of groups (rows, group) fp32."""
    codes: Tensor = _PREPACK[bits](groups)
    if len(groups) and not (_ordinary(groups, codes, bits) and isfinite(groups.sum().item())):
        odd = _odd(groups.amin(1), groups.amax(1), bits) | ~groups.sum(1).isfinite()
        for rows in torch.split(odd.nonzero().view(-1), rows_at_once(groups.shape[1])):
            codes[rows] = naive.pack_rows(groups[rows], bits)
    return codes


def _ordinary(groups: Tensor, codes: Tensor, bits: int) -> bool:
    """Whether no scale or bias is one of a group that FBGEMM may code otherwise. It passes over a
    NaN, which shows in a sum alone; an end that is not finite shows in the scale."""
    if bits == 8:
        scales = codes.numpy().view(np.float32)[:, -2].copy()
        return bool(scales.min() >= 2 * LEAST / 255 and scales.max() < np.inf)
    fields = codes.numpy().view(np.uint16)[:, -2:]
    doubtful = _DOUBTFUL.take(fields[:, 0], mode="clip")
    if not doubtful.any():
        return True
    scales, biases = fields[doubtful].T
    if not (scales == _ONE).all():
        return False
    doubtful[doubtful] = biases & 0x7FFF < _NORMAL  # tiny constants, or zeros
    return not doubtful.any() or not bool(groups[torch.from_numpy(doubtful)].any())


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
        values = _unpack_rows(codes, bits).view(-1)
        return values if len(values) == n else values[:n]
    values, step = torch.empty(n, dtype=dtype) if out is None else out, rows_at_once(group)
    for start in range(0, len(codes), step):
        some = values[start * group : (start + step) * group]
        some.copy_(_unpack_rows(codes[start : start + step], bits).view(-1)[: len(some)])
    return values


def _unpack_rows(codes: Tensor, bits: int) -> Tensor:
    """The groups (rows, group) fp32 that the rows `codes` hold."""
    groups: Tensor = _UNPACK[bits](codes)
    if bits != 8 and len(codes):
        scales = codes.numpy().view(np.int16)[:, -2]
        if scales.min() < 0:
            wide = torch.from_numpy(scales < 0)
            groups[wide] = naive.unpack_rows(codes[wide], bits)
    return groups


def pack_bits(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(in_memory(mask).numpy(), bitorder="little"))


def unpack_bits(whole: Tensor, n: int) -> Tensor:
    bits = np.unpackbits(whole.numpy(), count=n, bitorder="little")
    return torch.from_numpy(bits).view(torch.bool)


def pack_two(x: Tensor) -> tuple[Tensor, Tensor] | None:
    flat = in_memory(x).view(PATTERNS[x.dtype.itemsize]).numpy()
    whole = np.empty(-(-len(flat) // 8), dtype=np.uint8)
    first = second = flat[0]
    for start in (0, *range(64, len(flat), _AT_ONCE)):  # a look at a few first
        some = flat[start : start + _AT_ONCE if start else 64]
        others = some != first
        count = np.count_nonzero(others)
        if count:
            second = some[others.argmax()] if second == first else second
            if np.count_nonzero(some == second) < count:
                return None
        whole[start // 8 : -(-(start + len(some)) // 8)] = np.packbits(others, bitorder="little")
    ends = torch.from_numpy(np.array([first, second])).view(x.dtype)
    return torch.from_numpy(whole), ends


def unpack_two(whole: Tensor, ends: Tensor, n: int) -> Tensor:
    patterns = PATTERNS[ends.dtype.itemsize]
    # the eight values of each byte
    table = ends.view(patterns).numpy().take(_BITS_OF_BYTES)
    values = torch.empty(len(whole), 8, dtype=patterns)
    table.take(whole.numpy(), axis=0, out=values.numpy(), mode="clip")
    return values.view(-1)[:n].view(ends.dtype)
