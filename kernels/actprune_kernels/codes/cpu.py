"""By FBGEMM's operators, piece by piece: fresh memory costs several times what they do."""

import numpy as np
import torch
from torch import Tensor

from actprune_kernels.chunked import slices
from actprune_kernels.codes import LEAST, in_memory, naive, width
from actprune_kernels.sizes import rows_at_once

_OPERATORS = {2: "embedding_bag_2bit", 4: "embedding_bag_4bit", 8: "embedding_bag_byte"}
_NORMAL, _ONE, _INF = (np.uint16(bits) for bits in (0x0400, 0x3C00, 0x7C00))
"""The least normal number of fp16, 1 and infinity by their bits."""


def pack(x: Tensor, bits: int, group: int) -> Tensor:
    flat = in_memory(x)
    whole = len(flat) // group
    codes = torch.empty(-(-len(flat) // group), width(bits, group), dtype=torch.uint8)
    _pack_rows(flat[: whole * group].view(-1, group), bits, codes[:whole])
    if whole < len(codes):
        codes[whole:] = naive.pack(flat[whole * group :], bits, group)
    return codes


def _pack_rows(groups: Tensor, bits: int, codes: Tensor) -> None:
    """Fill the rows `codes` with those of groups (rows, group)."""
    pack = getattr(torch.ops.quantized, f"{_OPERATORS[bits]}_prepack")
    step = rows_at_once(groups.shape[1])
    pieces = slices(len(groups), step)
    sums = torch.empty(len(pieces))  # FBGEMM drops a NaN in silence
    for i, piece in enumerate(pieces):
        values = groups[piece].float()
        codes[piece] = pack(values)
        sums[i] = values.sum()
    suspects = _suspects(codes, bits)
    for i in (~sums.isfinite()).nonzero().view(-1).tolist():
        suspects[pieces[i]] = True
    rows = suspects.nonzero().view(-1)
    for piece in slices(len(rows), step):
        some = rows[piece]
        values = groups[some].float()
        odd = _odd(values.amin(1), values.amax(1), bits)
        codes[some[odd]] = naive.pack_rows(values[odd], bits)


def _suspects(codes: Tensor, bits: int) -> Tensor:
    """Which rows, by their scale, FBGEMM may have made otherwise than the definition: it is not
    finite, negative, tiny, or 1, as where fp16 has none that small."""
    if bits == 8:
        size = codes.view(torch.float32)[:, -2]
        return ~((size == 0) | (size > LEAST / 128) & (size < torch.inf))
    scale = codes.numpy().view(np.uint16)[:, -2].copy()  # its comparisons are the faster ones
    return torch.from_numpy((scale - _NORMAL >= _INF - _NORMAL) | (scale == _ONE))


def _odd(low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Which groups FBGEMM codes otherwise than the definition."""
    if bits == 8:
        size = high - low
        return ~((size == 0) | (size >= LEAST) & size.isfinite())
    return naive.is_wide(low, high, (1 << bits) - 1) | (high < low.half())


def unpack(
    codes: Tensor, bits: int, group: int, n: int, dtype: torch.dtype, out: Tensor | None = None
) -> Tensor:
    values = torch.empty(n, dtype=dtype) if out is None else out
    whole = n // group
    _unpack_rows(codes[:whole], bits, values[: whole * group].view(-1, group))
    if whole < len(codes):
        values[whole * group :] = naive.unpack_rows(codes[whole:], bits).view(-1)[: n % group]
    return values


def _unpack_rows(codes: Tensor, bits: int, groups: Tensor) -> None:
    """Fill groups (rows, group) with what the rows `codes` hold."""
    unpack = getattr(torch.ops.quantized, f"{_OPERATORS[bits]}_unpack")
    step = rows_at_once(groups.shape[1])
    for piece in slices(len(groups), step):
        groups[piece] = unpack(codes[piece])
    if bits != 8:
        wide = (codes.view(torch.int16)[:, -2] < 0).nonzero().view(-1)
        for piece in slices(len(wide), step):
            rows = wide[piece]
            groups[rows] = naive.unpack_rows(codes[rows], bits).to(groups.dtype)


def pack_bits(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(in_memory(mask).numpy(), bitorder="little"))


def unpack_bits(whole: Tensor, n: int) -> Tensor:
    bits = np.unpackbits(whole.numpy(), count=n, bitorder="little")
    return torch.from_numpy(bits).view(torch.bool)
