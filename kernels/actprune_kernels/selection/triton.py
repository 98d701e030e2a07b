"""Selection on the GPU, without waiting for the data: sizes alone decide every grid.

The bits of a non-negative float, read as an integer, sort as the float does, with NaN above Inf.
The k-th largest of a group is found bit by bit from the top: a candidate stays where at least k
keys reach it. Whole groups stand in registers meanwhile. Equal keys: the lower index stays.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from actprune_kernels.launch import launch
from actprune_kernels.selection import grouped, largest, rescale
from actprune_kernels.sizes import index_dtype

IN_REGISTERS = 32768
"""The largest group that one program holds; beyond it torch.topk finds the threshold."""
_CHUNK = 2048  # that a column is walked in once its threshold is known
_COPIED = 1024  # elements of a program that only copies
_KEYS = {torch.float32: (torch.int32, tl.int32), torch.float64: (torch.int64, tl.int64)}


@triton.jit
def _sample_ranks(magnitudes, draw, ranks, count, CHUNK: tl.constexpr):
    """ranks = magnitudes / u, u uniform in (0, 1]: Philox, a pure function of draw and index."""
    index = tl.program_id(0).to(tl.int64) * CHUNK + tl.arange(0, CHUNK)
    live = index < count
    seed, stream, counter = tl.load(draw), tl.load(draw + 1), tl.load(draw + 2)
    low, high = (index & 0xFFFFFFFF).to(tl.uint32), (index >> 32).to(tl.uint32)
    zero = low * 0
    bits, _, _, _ = tl.philox(
        seed, low, high, zero + stream.to(tl.uint32), zero + counter.to(tl.uint32)
    )
    u = ((bits >> 8).to(tl.int32) + 1).to(tl.float32) * (1.0 / 16777216.0)
    m = tl.load(magnitudes + index, mask=live)
    rank = tl.div_rn(m, u) if m.dtype == tl.float32 else m / u.to(tl.float64)
    tl.store(ranks + index, rank, mask=live)


@triton.jit
def _keys(ranks, index, live, KEY: tl.constexpr):
    """Sortable keys of the elements at `index`: -1 where not live."""
    bits = tl.load(ranks + index, mask=live, other=0).to(KEY, bitcast=True)
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
    ranks, position, dropped_out, size, keep,
    SIZE: tl.constexpr, CHUNK: tl.constexpr, KEY: tl.constexpr,
):  # fmt: skip
    """One group per program: ranks (groups, size) to position (groups, keep), ascending."""
    group = tl.program_id(0).to(tl.int64)
    base = group * size
    i = tl.arange(0, SIZE)
    keys = _keys(ranks, base + i, i < size, KEY)
    found, missing, dropped = _threshold(keys, keep, 0, KEY)
    if dropped_out is not None:
        tl.store(dropped_out + group + tl.arange(0, 1), dropped)
    ties = missing * 0  # of the chunks before
    kept = missing * 0
    for start in range(0, size, CHUNK):
        at = start + tl.arange(0, CHUNK)
        chunk = _keys(ranks, base + at, at < size, KEY)
        tied = (chunk == found).to(tl.int32)
        stays = (chunk > found) | ((tied > 0) & (ties + tl.cumsum(tied, 0) <= missing))
        counted = stays.to(tl.int32)
        place = kept + tl.cumsum(counted, 0) - 1
        tl.store(position + group * keep + place, base + at, mask=stays)
        ties += tl.sum(tied, 0)
        kept += tl.sum(counted, 0)


@triton.jit
def _select_row(
    ranks, mask_out, dropped_out, size, groups, keep,
    SIZE: tl.constexpr, GROUPS: tl.constexpr, KEY: tl.constexpr,
):  # fmt: skip
    """Some groups per program: ranks (size, groups) to mask_out, of the same shape."""
    i = tl.arange(0, SIZE)[:, None]
    group = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)[None, :]
    live = (i < size) & (group < groups)
    index = i.to(tl.int64) * groups + group
    keys = _keys(ranks, index, live, KEY)
    found, missing, dropped = _threshold(keys, keep, 0, KEY)
    if dropped_out is not None:
        tl.store(dropped_out + group, dropped, mask=group < groups)
    tied = (keys == found).to(tl.int32)
    stays = (keys > found) | ((tied > 0) & (tl.cumsum(tied, 0) <= missing))
    tl.store(mask_out + index, stays.to(tl.int8), mask=live)


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
    index type of nnz; and scale (nnz,) or None. The random numbers are not those of the CPU.
    """
    columns, rows = magnitudes.shape
    count = magnitudes.numel()
    groups = {"column": columns, "row": rows, "global": 1}[scope]
    nnz = keep * groups
    position = magnitudes.new_empty(nnz, dtype=torch.int32 if count < 2**31 else torch.int64)
    ranks, dropped, chunks = magnitudes, None, (triton.cdiv(count, _COPIED),)
    if draw is not None:
        ranks = torch.empty_like(magnitudes)
        draw = draw.to(magnitudes.device, non_blocking=True)
        launch(_sample_ranks, chunks, magnitudes, draw, ranks, count, CHUNK=_COPIED)
        dropped = magnitudes.new_zeros(groups, dtype=_KEYS[magnitudes.dtype][0])
    words = triton.next_power_of_2(count // groups) * magnitudes.element_size() // 4
    if scope == "column" and words <= IN_REGISTERS:
        _columns(ranks, position, dropped, keep)
        colptr = torch.arange(0, nnz + 1, keep, device=magnitudes.device)
    else:
        in_rows = scope == "row" and words <= IN_REGISTERS
        mask = _rows(ranks, dropped, keep) if in_rows else _large(ranks, dropped, scope, keep)
        running = mask.view(-1).cumsum(0, dtype=position.dtype)
        launch(_compact, chunks, mask, running, position, count, CHUNK=_COPIED)
        colptr = F.pad(running[rows - 1 :: rows], (1, 0))
    scale = None
    if dropped is not None:
        group = {"column": position // rows, "row": position % rows, "global": position * 0}[scope]
        threshold = dropped.view(magnitudes.dtype)[group.long()]
        scale = rescale(magnitudes.view(-1)[position.long()], threshold)
    return position, colptr.to(index_dtype(nnz)), scale


def _columns(ranks: Tensor, position: Tensor, dropped: Tensor | None, keep: int) -> None:
    groups, size = ranks.shape
    held = triton.next_power_of_2(size)
    warps = _warps(held * ranks.element_size() // 4)
    constants = {"SIZE": held, "CHUNK": min(_CHUNK, held), "KEY": _KEYS[ranks.dtype][1]}
    operands = ranks, position, dropped, size, keep
    launch(_select_column, (groups,), *operands, num_warps=warps, **constants)


def _rows(ranks: Tensor, dropped: Tensor | None, keep: int) -> Tensor:
    mask = torch.empty_like(ranks, dtype=torch.int8)
    size, groups = ranks.shape
    held = triton.next_power_of_2(size)
    at_once = max(1, min(64, 4096 // held))
    warps = _warps(held * at_once * ranks.element_size() // 2)  # the mask needs registers too
    constants = {"SIZE": held, "GROUPS": at_once, "KEY": _KEYS[ranks.dtype][1]}
    operands, grid = (ranks, mask, dropped, size, groups, keep), (triton.cdiv(groups, at_once),)
    launch(_select_row, grid, *operands, num_warps=warps, **constants)
    return mask


def _large(ranks: Tensor, dropped: Tensor | None, scope: str, keep: int) -> Tensor:
    """Mask (columns, rows) of groups that no program holds, by torch's own top-k."""
    integer = _KEYS[ranks.dtype][0]
    keys = ranks.view(integer) & torch.iinfo(integer).max
    groups = grouped(keys, scope)
    found = groups.topk(keep, dim=1, sorted=False).values.amin(1, keepdim=True)
    if dropped is not None:
        below = groups.where(groups < found, 0).amax(1)
        one_tied_is_dropped = (groups >= found).sum(1) > keep
        dropped.copy_(torch.where(one_tied_is_dropped, found.squeeze(1), below))
    mask = largest(groups, found, keep)
    return (mask.t().contiguous() if scope == "row" else mask).to(torch.int8)


def _warps(words: int) -> int:
    """32 words to a thread: as many as fit the registers beside what is computed."""
    return min(32, max(4, words // 1024))
