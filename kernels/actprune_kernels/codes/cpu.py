"""Piece by piece, so that what is between values and codes stays in the cache."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from actprune_kernels.codes import (
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
from actprune_kernels.sizes import wide

PIECE = 1 << 18
"""Values, about; four times a number of blocks, so that no random bits are left over."""


def encode(blocks: Tensor, kind: str, draw: Tensor | None) -> Parts:
    parts = empty(blocks, len(blocks), blocks.shape[1], kind)
    return encode_each(blocks.__getitem__, parts, kind, draw)


def encode_each(
    take: Callable[[slice], Tensor], parts: Parts, kind: str, draw: Tensor | None
) -> Parts:
    """Fill `parts` with the blocks (n, width) that `take` gives for a slice."""
    count, width = len(parts[0]), max(1, parts[0].shape[1])
    source = rounding(draw) if kind in BITS and draw is not None else None
    step = 4 * max(1, PIECE // (4 * width * (per_byte(kind) if source else 1)))
    for start in range(0, count, step):
        piece = slice(start, start + step)
        blocks = take(piece)
        made = naive.encode(blocks, kind, None) if source is None else _round(blocks, kind, source)
        for part, new in zip(parts, made, strict=True):
            part[piece] = new
    return parts


def _round(blocks: Tensor, kind: str, source: np.random.PCG64) -> Parts:
    up = fractions(source, blocks.numel()).view(blocks.shape)
    if not blocks.numel():
        return empty(blocks, len(blocks), blocks.shape[1], kind)
    x, count = blocks.to(wide(blocks.dtype)), per_byte(kind)
    scales, zeros = grid(x.amin(1), x.amax(1), kind)  # aminmax takes eight times as long
    levels = x * (1 / scales)[:, None]
    levels.add_(zeros[:, None]).add_(up, alpha=1 / FRACTION)
    levels.clamp_(0, (1 << BITS[kind]) - 1).floor_()
    first, *others = torch.split(levels, -(-levels.shape[1] // count), 1)
    for place, piece in enumerate(others, 1):  # packed as numbers, of which there are fewer then
        first[:, : piece.shape[1]].add_(piece, alpha=1 << (place * BITS[kind]))
    return first.to(torch.uint8), scales.to(torch.bfloat16), zeros.to(torch.uint8)


def decode(parts: Parts, kind: str, width: int, dtype: torch.dtype) -> Tensor:
    if kind not in BITS:
        return naive.decode(parts, kind, width, dtype)
    whole, scales, zeros = parts
    bits = BITS[kind]
    blocks = whole.new_empty(len(whole), width, dtype=dtype)
    span, mask = whole.shape[1], (1 << bits) - 1
    scales, zeros = scales.to(dtype)[:, None], zeros.to(dtype)[:, None]
    step = max(1, PIECE // max(1, width))
    for start in range(0, len(whole), step):
        piece = slice(start, start + step)
        target = blocks[piece]
        for place, part in enumerate(torch.split(target, span, 1)):
            part.copy_((whole[piece] >> (place * bits) & mask)[:, : part.shape[1]])
        target.sub_(zeros[piece]).mul_(scales[piece])
    return blocks
