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
from actprune_kernels.selection import grouped, largest
from actprune_kernels.sizes import SCOPES, blocks_along, index_dtype, power_of_2

IN_REGISTERS = 32768
"""The largest group that one program holds; beyond it torch.topk finds the threshold."""
_CHUNK = 4096  # of a column of which a program of its own finds what stays; less would spill
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

    AXIS is the one along which a group lies; the results keep it, with length 1. None: all are one.
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
    ranks, position, colptr, dropped_out, found_out, ties_out, places_out, size, keep,
    CHUNKS: tl.constexpr, CHUNK: tl.constexpr, KEY: tl.constexpr,
):  # fmt: skip
    """One group per program: ranks (groups, size) to position (groups, keep), ascending.

    A group of several chunks is only divided: its threshold goes to found_out (groups,), and for
    each chunk (groups, CHUNKS), how many ties may still stay and the place of what stays first.
    """
    group = tl.program_id(0).to(tl.int64)
    chunk, i = tl.arange(0, CHUNKS), tl.arange(0, CHUNK)
    at = chunk[:, None] * CHUNK + i[None, :]
    keys = _keys(ranks + group * size, at, at < size, KEY)
    found, missing, dropped = _threshold(keys, keep, None, KEY)
    one = tl.arange(0, 1)
    if dropped_out is not None:
        tl.store(dropped_out + group + one[:, None], dropped)
    ends = (group + one) * keep
    tl.store(colptr + group + one, ends.to(colptr.dtype.element_ty))
    last = group + one == tl.num_programs(0) - 1
    tl.store(colptr + group + 1 + one, (ends + keep).to(colptr.dtype.element_ty), mask=last)
    if CHUNKS == 1:
        tied = (keys == found).to(tl.int32)
        stays = (keys > found) | ((tied > 0) & (tl.cumsum(tied, 1) <= missing))
        place = tl.cumsum(stays.to(tl.int32), 1) - 1
        tl.store(position + group * keep + place, group * size + at, mask=stays)
    else:
        ties = tl.sum((keys == found).to(tl.int32), 1)
        left = tl.sum(missing, 1) - (tl.cumsum(ties, 0) - ties)
        stay = tl.sum((keys > found).to(tl.int32), 1) + tl.minimum(tl.maximum(left, 0), ties)
        tl.store(found_out + group + one[:, None], found)
        tl.store(ties_out + group * CHUNKS + chunk, left)
        tl.store(places_out + group * CHUNKS + chunk, tl.cumsum(stay, 0) - stay)


@triton.jit
def _place_chunk(
    ranks, position, found_in, ties, places, size, keep,
    CHUNKS: tl.constexpr, CHUNK: tl.constexpr, KEY: tl.constexpr,
):  # fmt: skip
    """What stays of one chunk of a group, as _select_column divided it."""
    group, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = chunk * CHUNK + tl.arange(0, CHUNK)
    keys = _keys(ranks + group * size, at, at < size, KEY)
    found = tl.load(found_in + group)
    tied = (keys == found).to(tl.int32)
    left = tl.load(ties + group * CHUNKS + chunk)
    stays = (keys > found) | ((tied > 0) & (tl.cumsum(tied, 0) <= left))
    place = tl.load(places + group * CHUNKS + chunk) + tl.cumsum(stays.to(tl.int32), 0) - 1
    tl.store(position + group * keep + place, group * size + at, mask=stays)


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
def _scale_kept(
    magnitudes, position, dropped, scale, nnz, rows,
    SCOPE: tl.constexpr, KEY: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """scale (nnz,): `rescale` of what stays by the largest that its group dropped."""
    i = tl.program_id(0).to(tl.int64) * CHUNK + tl.arange(0, CHUNK)
    live = i < nnz
    at = tl.load(position + i, mask=live, other=0)
    group = at // rows if SCOPE == 1 else at % rows if SCOPE == 2 else at * 0
    m = tl.load(magnitudes + at, mask=live, other=0)
    t = tl.load(dropped + group, mask=live, other=0).to(m.dtype, bitcast=True)
    usable = (m > 0) & (m < float("inf")) & (t < float("inf"))
    m = tl.where(usable, m, 1)
    s = tl.div_rn(t, m) if m.dtype == tl.float32 else t / m
    tl.store(scale + i, tl.where(usable & (s > 1), s, 1), mask=live)


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
    ranks, dropped, chunks = magnitudes, None, (blocks_along(count, _COPIED),)
    if draw is not None:
        ranks = torch.empty_like(magnitudes)
        draw = draw.to(magnitudes.device, non_blocking=True)
        launch(_sample_ranks, chunks, magnitudes, draw, ranks, count, CHUNK=_COPIED)
        dropped = magnitudes.new_empty(groups, dtype=_KEYS[magnitudes.dtype][0])
    words = power_of_2(count // groups) * magnitudes.element_size() // 4
    if scope == "column" and words <= IN_REGISTERS:
        colptr = position.new_empty(columns + 1, dtype=index_dtype(nnz))
        _columns(ranks, position, colptr, dropped, keep)
    else:
        in_rows = scope == "row" and words <= IN_REGISTERS
        mask = _rows(ranks, dropped, keep) if in_rows else _large(ranks, dropped, scope, keep)
        running = mask.view(-1).cumsum(0, dtype=position.dtype)
        launch(_compact, chunks, mask, running, position, count, CHUNK=_COPIED)
        colptr = F.pad(running[rows - 1 :: rows], (1, 0)).to(index_dtype(nnz))
    scale = None
    if dropped is not None:
        scale = magnitudes.new_empty(nnz)
        constants = {"SCOPE": SCOPES.index(scope), "KEY": _KEYS[magnitudes.dtype][1]}
        operands, grid = (
            (magnitudes, position, dropped, scale, nnz, rows),
            blocks_along(nnz, _COPIED),
        )
        launch(_scale_kept, (grid,), *operands, CHUNK=_COPIED, **constants)
    return position, colptr, scale


def _columns(
    ranks: Tensor, position: Tensor, colptr: Tensor, dropped: Tensor | None, keep: int
) -> None:
    groups, size = ranks.shape
    held = power_of_2(size)
    warps = _warps(held * ranks.element_size() // 4)
    chunk = min(_CHUNK, held)
    constants = {"CHUNKS": held // chunk, "CHUNK": chunk, "KEY": _KEYS[ranks.dtype][1]}
    found = ties = places = None
    if held > chunk:
        found = position.new_empty(groups, dtype=_KEYS[ranks.dtype][0])
        ties, places = position.new_empty(2, groups, held // chunk, dtype=torch.int32)
    divided, sizes = (found, ties, places), (size, keep)
    operands = ranks, position, colptr, dropped, *divided, *sizes
    launch(_select_column, (groups,), *operands, num_warps=warps, **constants)
    if held > chunk:
        grid = groups, blocks_along(size, chunk)
        launch(_place_chunk, grid, ranks, position, *divided, *sizes, num_warps=8, **constants)


def _rows(ranks: Tensor, dropped: Tensor | None, keep: int) -> Tensor:
    mask = torch.empty_like(ranks, dtype=torch.int8)
    size, groups = ranks.shape
    held = power_of_2(size)
    at_once = max(1, min(64, 4096 // held))
    warps = _warps(held * at_once * ranks.element_size() // 2)  # the mask needs registers too
    constants = {"SIZE": held, "GROUPS": at_once, "KEY": _KEYS[ranks.dtype][1]}
    operands, grid = (ranks, mask, dropped, size, groups, keep), (blocks_along(groups, at_once),)
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
