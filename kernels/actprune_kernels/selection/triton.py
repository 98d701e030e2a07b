"""Selection on the GPU, without waiting for the data: sizes alone decide every grid.

The bits of a non-negative float, read as an integer, sort as the float does, with NaN above Inf.
The k-th largest of a group is found bit by bit from the top: a candidate stays where at least k
keys reach it. Whole groups stand in registers meanwhile. Equal keys: the lower index stays.
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from actprune_kernels.launch import launch
from actprune_kernels.selection import rescale
from actprune_kernels.sizes import index_dtype

IN_REGISTERS = 32768
"""The largest group that one program holds; beyond it torch.topk finds the threshold."""
_CHUNK = 2048


@triton.jit
def _uniform(draw, index):
    """Philox numbers in (0, 1], a pure function of draw (seed, stream, counter) and index."""
    seed, stream, counter = tl.load(draw), tl.load(draw + 1), tl.load(draw + 2)
    wide = index.to(tl.int64)
    low, high = (wide & 0xFFFFFFFF).to(tl.uint32), (wide >> 32).to(tl.uint32)
    zero = low * 0
    bits, _, _, _ = tl.philox(
        seed, low, high, zero + stream.to(tl.uint32), zero + counter.to(tl.uint32)
    )
    return ((bits >> 8).to(tl.int32) + 1).to(tl.float32) * (1.0 / 16777216.0)


@triton.jit
def _keys(magnitudes, draw, index, live, KEY: tl.constexpr):
    """Sortable keys of the elements at `index`: -1 where not live."""
    m = tl.load(magnitudes + index, mask=live, other=0)
    if draw is not None:
        u = _uniform(draw, index)
        m = tl.div_rn(m, u) if KEY == tl.int32 else m / u.to(tl.float64)
    bits = m.to(KEY, bitcast=True)
    sign: tl.constexpr = 0x7FFFFFFF if KEY == tl.int32 else 0x7FFFFFFFFFFFFFFF
    return tl.where(live, bits & sign, -1)  # a NaN's sign is no rank


@triton.jit
def _threshold(keys, keep, AXIS: tl.constexpr, KEY: tl.constexpr):
    """The keep-th largest key of each group, how many of that key stay, and the largest dropped.

    AXIS is the one along which a group lies; the results keep it, with length 1.
    """
    found = tl.max(keys, AXIS, keep_dims=True) * 0
    bits: tl.constexpr = 31 if KEY == tl.int32 else 63
    for step in range(bits):
        candidate = found | (tl.full((), 1, KEY) << (bits - 1 - step))
        reached = tl.sum((keys >= candidate).to(tl.int32), AXIS, keep_dims=True)
        found = tl.where(reached >= keep, candidate, found)
    above = tl.sum((keys > found).to(tl.int32), AXIS, keep_dims=True)
    tied = tl.sum((keys == found).to(tl.int32), AXIS, keep_dims=True)
    below = tl.max(tl.where(keys < found, keys, -1), AXIS, keep_dims=True)
    dropped = tl.where(above + tied > keep, found, tl.maximum(below, 0))
    return found, keep - above, dropped


@triton.jit
def _select_column(
    magnitudes,
    draw,
    position,
    dropped_out,
    size,
    keep,
    SIZE: tl.constexpr,
    CHUNK: tl.constexpr,
    KEY: tl.constexpr,
):
    """One group per program: magnitudes (groups, size) to position (groups, keep), ascending."""
    group = tl.program_id(0).to(tl.int64)
    base = group * size
    i = tl.arange(0, SIZE)
    keys = _keys(magnitudes, draw, base + i, i < size, KEY)
    found, missing, dropped = _threshold(keys, keep, 0, KEY)
    if draw is not None:
        first = tl.arange(0, 1)
        tl.store(dropped_out + group + first, dropped)
    ties = missing * 0  # of the chunks before
    kept = missing * 0
    for start in range(0, size, CHUNK):
        at = start + tl.arange(0, CHUNK)
        chunk = _keys(magnitudes, draw, base + at, at < size, KEY)
        tied = (chunk == found).to(tl.int32)
        stays = (chunk > found) | ((tied > 0) & (ties + tl.cumsum(tied, 0) <= missing))
        counted = stays.to(tl.int32)
        place = kept + tl.cumsum(counted, 0) - 1
        tl.store(position + group * keep + place, base + at, mask=stays)
        ties += tl.sum(tied, 0)
        kept += tl.sum(counted, 0)


@triton.jit
def _select_row(
    magnitudes,
    draw,
    mask_out,
    dropped_out,
    size,
    groups,
    keep,
    SIZE: tl.constexpr,
    GROUPS: tl.constexpr,
    KEY: tl.constexpr,
):
    """Some groups per program: magnitudes (size, groups) to mask_out, of the same shape."""
    i = tl.arange(0, SIZE)[:, None]
    group = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)[None, :]
    live = (i < size) & (group < groups)
    index = i.to(tl.int64) * groups + group
    keys = _keys(magnitudes, draw, index, live, KEY)
    found, missing, dropped = _threshold(keys, keep, 0, KEY)
    if draw is not None:
        tl.store(dropped_out + group, dropped, mask=group < groups)
    tied = (keys == found).to(tl.int32)
    stays = (keys > found) | ((tied > 0) & (tl.cumsum(tied, 0) <= missing))
    tl.store(mask_out + index, stays.to(tl.int8), mask=live)


@triton.jit
def _all_keys(magnitudes, draw, keys_out, count, CHUNK: tl.constexpr, KEY: tl.constexpr):
    """The keys of every element: for groups that no program holds."""
    index = tl.program_id(0).to(tl.int64) * CHUNK + tl.arange(0, CHUNK)
    live = index < count
    tl.store(keys_out + index, _keys(magnitudes, draw, index, live, KEY), mask=live)


@triton.jit
def _compact(mask, running, position, count, CHUNK: tl.constexpr):
    """position[running[i] - 1] = i wherever mask[i] is set."""
    index = tl.program_id(0).to(tl.int64) * CHUNK + tl.arange(0, CHUNK)
    live = index < count
    stays = tl.load(mask + index, mask=live, other=0) != 0
    place = tl.load(running + index, mask=stays, other=1) - 1
    tl.store(position + place, index, mask=stays)


def select(
    magnitudes: Tensor, keep: int, scope: str, draw: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What `naive.select` keeps, as flat positions.

    magnitudes (columns, rows), contiguous, fp32 or fp64, of at least one element. Returns position
    (nnz,) in magnitudes, ascending, int32 where that is enough; colptr (columns + 1,), in the
    index type of nnz; and scale (nnz,) or None.
    """
    columns, rows = magnitudes.shape
    if draw is not None:
        draw = draw.to(magnitudes.device, non_blocking=True)
    groups = {"column": columns, "row": rows, "global": 1}[scope]
    size, nnz = magnitudes.numel() // groups, keep * groups
    position = magnitudes.new_empty(nnz, dtype=_position_dtype(magnitudes.numel()))
    dropped = magnitudes.new_zeros(groups, dtype=_KEYS[magnitudes.dtype][0])
    options: dict[str, Any] = {
        "magnitudes": magnitudes,
        "draw": draw,
        "KEY": _KEYS[magnitudes.dtype][1],
    }
    held = triton.next_power_of_2(size) * magnitudes.element_size() // 4
    if scope == "column" and held <= IN_REGISTERS:
        launch(
            _select_column,
            (groups,),
            position=position,
            dropped_out=dropped,
            size=size,
            keep=keep,
            SIZE=triton.next_power_of_2(size),
            CHUNK=min(_CHUNK, triton.next_power_of_2(size)),
            num_warps=min(32, max(4, held // 1024)),
            **options,
        )
        colptr = torch.arange(0, nnz + 1, keep, device=magnitudes.device)
    else:
        if scope == "row" and held <= IN_REGISTERS:
            mask = _rows(options, dropped, size, groups, keep)
        else:
            mask = _large(options, dropped, scope, keep)
        running = mask.view(-1).cumsum(0, dtype=position.dtype)
        count = magnitudes.numel()
        launch(
            _compact,
            (triton.cdiv(count, 1024),),
            mask=mask,
            running=running,
            position=position,
            count=count,
            CHUNK=1024,
        )
        colptr = F.pad(running[rows - 1 :: rows], (1, 0))
    scale = None
    if draw is not None:
        column_of, row_of = position // rows, position % rows
        group_of = {"column": column_of, "row": row_of, "global": torch.zeros_like(position)}
        threshold = dropped.view(magnitudes.dtype)[group_of[scope].long()]
        scale = rescale(magnitudes.view(-1)[position.long()], threshold)
    return position, colptr.to(index_dtype(nnz)), scale


_KEYS = {torch.float32: (torch.int32, tl.int32), torch.float64: (torch.int64, tl.int64)}


def _position_dtype(count: int) -> torch.dtype:
    return torch.int32 if count < 2**31 else torch.int64


def _rows(options: dict[str, Any], dropped: Tensor, size: int, groups: int, keep: int) -> Tensor:
    magnitudes: Tensor = options["magnitudes"]
    mask = torch.empty_like(magnitudes, dtype=torch.int8)
    high = triton.next_power_of_2(size)
    at_once = max(1, min(64, 4096 // high))
    launch(
        _select_row,
        (triton.cdiv(groups, at_once),),
        mask_out=mask,
        dropped_out=dropped,
        size=size,
        groups=groups,
        keep=keep,
        SIZE=high,
        GROUPS=at_once,
        num_warps=min(32, max(4, high * at_once // 1024)),
        **options,
    )
    return mask


def _large(options: dict[str, Any], dropped: Tensor, scope: str, keep: int) -> Tensor:
    """Mask (columns, rows); fills `dropped` with the largest key that each group dropped."""
    magnitudes: Tensor = options["magnitudes"]
    keys = torch.empty_like(magnitudes, dtype=dropped.dtype)
    count = keys.numel()
    launch(
        _all_keys, (triton.cdiv(count, 1024),), keys_out=keys, count=count, CHUNK=1024, **options
    )
    grouped = keys.view(1, -1) if scope == "global" else keys if scope == "column" else keys.t()
    size = grouped.shape[1]
    largest = grouped.topk(min(keep + 1, size), dim=1).values
    found = largest[:, keep - 1 : keep]
    if keep < size:
        dropped.copy_(largest[:, keep])
    above, tied = grouped > found, grouped == found
    missing = keep - above.sum(1, keepdim=True)
    mask = above | (tied & (tied.cumsum(1) <= missing))
    if scope == "row":
        mask = mask.t().contiguous()
    return mask.to(torch.int8)
