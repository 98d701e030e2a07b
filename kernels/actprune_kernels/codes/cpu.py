"""By FBGEMM's operators; the rare groups that these do not code as the definition does, by that."""

from math import isfinite
from typing import Any

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
_HALF_ONE, _HALF_LEAST, _HALF_MOST = 0x3C00, 0x0400, 0x7BFF
"""The bits in fp16 of 1, the scale of a constant, and of the ends of the normal numbers."""


def _doubtful(first: int, last: int) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """A table by 16 bits: False from `first` to `last`."""
    table = np.ones(1 << 16, dtype=np.bool_)
    table[first : last + 1] = False
    return table


_OF_HALF = _doubtful(_HALF_LEAST, _HALF_MOST)
_OF_HALF[_HALF_ONE] = True
_OF_HIGH = _doubtful(int(np.float32(2 * LEAST / 255).view(np.uint32) >> 16) + 1, 0x7F7F)
_DOUBTFUL = {2: _OF_HALF, 4: _OF_HALF, 8: _OF_HIGH}
"""By the bits of a scale, of fp32 the upper half: whether FBGEMM may code the group otherwise."""
_BITS_OF_BYTES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_AT_ONCE = 1 << 16
"""Elements to look at together for two values, a multiple of 8: they stay in the cache."""


def pack(x: Tensor, bits: int, group: int) -> Tensor:
    flat = in_memory(x)
    count = flat.numel()
    if x.dtype == torch.float32 and not count % group:
        return _pack_rows(flat.view(-1, group), bits)

    def packed(rows: slice) -> tuple[Tensor]:
        some = flat[rows.start * group : rows.stop * group]
        some = naive.groups(some, group) if len(some) % group else some.view(-1, group)
        return (_pack_rows(some.float(), bits),)

    return in_chunks(packed, -(-count // group), rows_at_once(group))[0]


def _pack_rows(groups: Tensor, bits: int) -> Tensor:
    """The rows of groups (rows, group) fp32."""
    codes: Tensor = _PREPACK[bits](groups)
    odd = _odd(codes, bits)
    if not isfinite(groups.sum().item()):  # FBGEMM passes over a NaN, which shows in a sum alone
        odd = np.union1d(odd, (~groups.sum(1).isfinite()).numpy().nonzero()[0])
    step = rows_at_once(groups.shape[1]) if odd.size else 1
    for start in range(0, odd.size, step):
        rows = odd[start : start + step]
        some = groups.numpy().take(rows, axis=0)
        live = np.flatnonzero(some.any(axis=1))  # zeros are as they should be
        if live.size:
            codes[rows[live]] = naive.pack_rows(torch.from_numpy(some[live]), bits)
    return codes


def _odd(codes: Tensor, bits: int) -> "np.ndarray[Any, np.dtype[np.intp]]":
    """The rows that FBGEMM may have coded otherwise, by scale and bias; what is not finite shows in
    the scale."""
    fields = codes.numpy().view(np.uint16)
    rows = _DOUBTFUL[bits].take(fields[:, -3 if bits == 8 else -2]).nonzero()[0]
    if rows.size and bits == 8:
        rows = rows[codes.numpy().view(np.float32)[:, -2].take(rows) != 0]  # 0: of a constant
    elif rows.size:
        scales, biases = fields[:, -2].take(rows), fields[:, -1].take(rows)
        rows = rows[(scales != _HALF_ONE) | (biases & 0x7FFF < _HALF_LEAST)]
    return rows


def unpack(
    codes: Tensor, bits: int, group: int, n: int, dtype: torch.dtype, out: Tensor | None = None
) -> Tensor:
    if out is None and dtype == torch.float32:
        values = _unpack_rows(codes, bits).view(-1)
        return values if values.numel() == n else values[:n]
    values, step = torch.empty(n, dtype=dtype) if out is None else out, rows_at_once(group)
    for start in range(0, len(codes), step):
        some = values[start * group : (start + step) * group]
        some.copy_(_unpack_rows(codes[start : start + step], bits).view(-1)[: len(some)])
    return values


def _unpack_rows(codes: Tensor, bits: int) -> Tensor:
    """The groups (rows, group) fp32 that the rows `codes` hold."""
    groups: Tensor = _UNPACK[bits](codes)
    if bits != 8:
        wide = (codes.numpy().view(np.int16)[:, -2] < 0).nonzero()[0]  # by the sign of the scale
        if wide.size:
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
    table = ends.view(patterns).numpy().take(_BITS_OF_BYTES)  # (256, 8): of each byte
    values = torch.empty(len(whole), 8, dtype=patterns)
    table.take(whole.numpy(), axis=0, out=values.numpy(), mode="clip")
    return values.view(-1)[:n].view(ends.dtype)
