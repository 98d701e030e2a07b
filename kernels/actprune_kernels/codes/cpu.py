"""By FBGEMM's operators, piece by piece: fresh memory costs several times what they do."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actprune_kernels.chunked import slices
from actprune_kernels.codes import LEAST, in_memory, naive, width
from actprune_kernels.sizes import rows_at_once

_OPERATORS = {2: "embedding_bag_2bit", 4: "embedding_bag_4bit", 8: "embedding_bag_byte"}
_ONE, _INF, _SIGN = np.uint16(0x3C00), np.uint16(0x7C00), np.uint16(0x8000)
"""Of fp16, by their bits."""


def pack(x: Tensor, bits: int, group: int) -> Tensor:
    flat = in_memory(x)
    whole = len(flat) // group
    codes = torch.empty(-(-len(flat) // group), width(bits, group), dtype=torch.uint8)
    _pack_rows(flat[: whole * group].view(-1, group), bits, codes[:whole])
    if whole < len(codes):
        _pack_rows(naive.groups(flat[whole * group :], group), bits, codes[whole:])
    return codes


def _pack_rows(groups: Tensor, bits: int, codes: Tensor) -> None:
    """Fill the rows `codes` with those of groups (rows, group)."""
    pack = getattr(torch.ops.quantized, f"{_OPERATORS[bits]}_prepack")
    step = rows_at_once(groups.shape[1])
    norms = torch.empty(len(groups))
    for piece in slices(len(groups), step):
        values = groups[piece].float()
        codes[piece] = pack(values)
        torch.linalg.vector_norm(values, dim=1, out=norms[piece])  # the fastest that keeps NaN
    if bits != 8:
        _one_level(codes)
    rows = _suspects(codes, norms, bits, groups.shape[1])
    for piece in slices(len(rows), step):
        some = torch.from_numpy(rows[piece])
        values = groups[some].float()
        odd = _odd(values.amin(1), values.amax(1), bits)
        if odd.any():
            codes[some[odd]] = naive.pack_rows(values[odd], bits)


def _one_level(codes: Tensor) -> None:
    """Rows whose scale FBGEMM made negative, as fp16 rounds the least value up past the others."""
    halves = codes.numpy().view(np.uint16)
    scales = halves[:, -2].copy()
    rows = np.flatnonzero((scales > _SIGN) & (scales < _SIGN + _INF))
    codes.numpy()[rows, :-4], halves[rows, -2] = 0, _ONE


def _suspects(codes: Tensor, norms: Tensor, bits: int, group: int) -> NDArray[np.int64]:
    """The rows that FBGEMM, which drops NaN, may have made otherwise than the definition.

    By NumPy, whose comparisons are faster, and start in a tenth of the time.
    """
    of_rows = norms.numpy()
    if bits == 8:
        scales = codes.numpy().view(np.float32)[:, -2]
        odd = (scales > 0) & (scales <= LEAST / 128) | ~(scales < np.inf)
    else:
        odd = codes.numpy().view(np.uint16)[:, -2] & _INF == _INF
        odd |= (of_rows > 0) & (of_rows < LEAST * group**0.5)
    return np.flatnonzero(odd | ~(of_rows < np.inf))


def _odd(low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Which groups FBGEMM codes otherwise than the definition."""
    if bits == 8:
        size = high - low
        return ~((size == 0) | (size >= LEAST) & size.isfinite())
    return naive.is_wide(low, high, (1 << bits) - 1)


def unpack(
    codes: Tensor, bits: int, group: int, n: int, dtype: torch.dtype, out: Tensor | None = None
) -> Tensor:
    values = torch.empty(n, dtype=dtype) if out is None else out
    whole = n // group
    _unpack_rows(codes[:whole], bits, values[: whole * group].view(-1, group))
    if whole < len(codes):
        last = values.new_empty(1, group)
        _unpack_rows(codes[whole:], bits, last)
        values[whole * group :] = last[0, : n % group]
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
