"""Piece by piece, so that what is between values and codes stays in the cache."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from actprune_kernels.chunked import slices
from actprune_kernels.quantization import (
    BITS,
    FRACTION,
    Parts,
    empty,
    fractions,
    grid,
    naive,
    per_byte,
    rounding,
)
from actprune_kernels.sizes import rows_at_once, wide


def encode(blocks: Tensor, kind: str, draw: Tensor | None) -> Parts:
    parts = empty(blocks, len(blocks), blocks.shape[1], kind)
    return encode_each(blocks.__getitem__, parts, kind, draw)


def encode_each(
    take: Callable[[slice], Tensor], parts: Parts, kind: str, draw: Tensor | None
) -> Parts:
    """Fill `parts` with the blocks (n, width) that `take` gives for a slice."""
    count, width = len(parts[0]), max(1, parts[0].shape[1])
    source = rounding(draw) if kind in BITS and draw is not None else None
    values = width * (per_byte(kind) if source else 1)
    step = rows_at_once(values, 4)  # of four blocks no random bits are left over
    room: tuple[Tensor, Tensor] | None = None
    for piece in slices(count, step):
        blocks, some = take(piece), [part[piece] for part in parts]
        if source is None:
            for part, new in zip(some, naive.encode(blocks, kind, None), strict=True):
                part.copy_(new)
        else:
            if room is None:
                levels = torch.empty(blocks.shape, dtype=wide(blocks.dtype))
                room = levels, torch.empty(blocks.shape)
            _round(blocks, kind, source, some, [each[: len(blocks)] for each in room])
    return parts


def _round(
    blocks: Tensor, kind: str, source: np.random.PCG64, parts: list[Tensor], room: list[Tensor]
) -> None:
    """Fill `parts` with blocks (n, width). room: (n, width), wide and fp32, to compute in: memory
    that is asked for piece by piece costs more in page faults than the arithmetic."""
    fractions(source, blocks.numel(), room[1])
    if not blocks.numel():
        return
    x, (levels, up) = blocks.to(room[0].dtype), room
    scales, zeros = grid(x.amin(1), x.amax(1), kind)  # aminmax takes eight times as long
    torch.mul(x, (1 / scales)[:, None], out=levels)
    levels.add_(zeros[:, None]).add_(up, alpha=1 / FRACTION)
    levels.clamp_(0, (1 << BITS[kind]) - 1).floor_()
    for part, new in zip(parts, (pack_(levels, BITS[kind]), scales, zeros), strict=True):
        part.copy_(new)


def pack_(levels: Tensor, bits: int) -> Tensor:
    """The bytes of codes (n, width) that are whole numbers of any type, as such numbers: a view
    of `levels`, which is overwritten. There are fewer to convert then."""
    first, *others = torch.split(levels, -(-levels.shape[1] * bits // 8), 1)
    for place, piece in enumerate(others, 1):
        first[:, : piece.shape[1]].add_(piece, alpha=1 << (place * bits))
    return first


def unpack_(levels: Tensor, codes: Tensor, bits: int) -> Tensor:
    """levels (n, width) of any type become what the bytes `codes` hold."""
    last = (1 << bits) - 1
    for place, part in enumerate(torch.split(levels, codes.shape[1], 1)):
        part.copy_((codes >> (place * bits) & last)[:, : part.shape[1]])
    return levels


def decode(parts: Parts, kind: str, width: int, dtype: torch.dtype) -> Tensor:
    if kind not in BITS:
        return naive.decode(parts, kind, width, dtype)
    whole, scales, zeros = parts
    blocks = whole.new_empty(len(whole), width, dtype=dtype)
    scales, zeros = scales.to(dtype)[:, None], zeros.to(dtype)[:, None]
    for piece in slices(len(whole), rows_at_once(width)):
        levels = unpack_(blocks[piece], whole[piece], BITS[kind])
        levels.sub_(zeros[piece]).mul_(scales[piece])
    return blocks
