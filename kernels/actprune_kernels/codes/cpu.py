"""By FBGEMM's operators, piece by piece: fresh memory costs several times what they do."""

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
    codes = torch.empty(-(-len(flat) // group), width(bits, group), dtype=torch.uint8)
    _pack_rows(flat[: whole * group].view(-1, group), bits, codes[:whole])
    codes[whole:] = naive.pack(flat[whole * group :], bits, group)
    return codes


def _pack_rows(groups: Tensor, bits: int, codes: Tensor) -> None:
    """Fill the rows `codes` with those of groups (rows, group)."""
    pack = getattr(torch.ops.quantized, f"{_OPERATORS[bits]}_prepack_with_rowwise_min_max")
    ends, step = torch.empty(len(groups), 2), rows_at_once(groups.shape[1])
    for piece in slices(len(groups), step):
        values, (low, high) = groups[piece].float(), ends[piece].unbind(1)
        torch.amin(values, 1, out=low)
        torch.amax(values, 1, out=high)
        if bits != 8:
            torch.maximum(high, low.half().float(), out=high)  # no scale is negative
        codes[piece] = pack(values, ends[piece])
    odd = _odd(ends[:, 0], ends[:, 1], bits).nonzero().view(-1)
    for rows in torch.split(odd, step):
        codes[rows] = naive.pack_rows(groups[rows].float(), bits)


def _odd(low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Which groups FBGEMM does not code as the definition does."""
    if bits != 8:
        return naive.is_wide(low, high)
    size = high - low
    return ~((size == 0) | (size >= LEAST) & size.isfinite())


def unpack(
    codes: Tensor, bits: int, group: int, n: int, dtype: torch.dtype, out: Tensor | None = None
) -> Tensor:
    values = torch.empty(n, dtype=dtype) if out is None else out
    whole = n // group
    _unpack_rows(codes[:whole], bits, values[: whole * group].view(-1, group))
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
        for rows in torch.split(wide, step):
            groups[rows] = naive.unpack_rows(codes[rows], bits).to(groups.dtype)


def pack_bits(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(in_memory(mask).numpy(), bitorder="little"))


def unpack_bits(whole: Tensor, n: int) -> Tensor:
    bits = np.unpackbits(whole.numpy(), count=n, bitorder="little")
    return torch.from_numpy(bits).view(torch.bool)
