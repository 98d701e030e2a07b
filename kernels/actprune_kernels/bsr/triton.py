"""BSR on the GPU: block norms, selection, one gather-copy; a product without atomics.

compress reads X once for the norms and the kept blocks once more. grad_weight runs one program per
(part of a block column, tile of out_features): it walks the kept rows in sequence and gathers the
rows of dY that match, so the height of a block does not limit the depth of a step, and it stores
once. Every sum has one fixed order: the same input gives the same bits.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from actprune_kernels import tuning
from actprune_kernels.launch import launch
from actprune_kernels.pointers import search_columns
from actprune_kernels.quantization import BITS, SAME, Kept, Quantized
from actprune_kernels.quantization.triton import decode, encode, fp8, levels
from actprune_kernels.selection import Selection
from actprune_kernels.selection.triton import select
from actprune_kernels.sizes import Size, blocks_along, factor, index_dtype, power_of_2, wide

_TILE = 4096  # elements that one program of a copying kernel moves
_SUM_TILE = 32
_LONGEST_SUM = 2048  # rows added one by one in fp32: longer sums lose digits, so they are divided
_LONGEST_PART = 2**23  # rows: positions within a part are 32-bit
_NORMS = {"l2": 0, "l1": 1, "max": 2}


@triton.jit
def _inside(index, BLOCK: tl.constexpr, PADDED: tl.constexpr):
    """Where the `index`-th element of a row of padded blocks lies, and whether it is one."""
    if BLOCK == PADDED:
        return index, index >= 0
    return index // PADDED * BLOCK + index % PADDED, index % PADDED < BLOCK


@triton.jit
def multiple(size, OF: tl.constexpr):
    """`size`, a multiple of OF, so that the compiler knows: rows then move in whole vectors."""
    return size // OF * OF


@triton.jit
def _block_norms(
    activation, norms, rows, features, block_rows, block_cols,
    BM: tl.constexpr, BN: tl.constexpr, PM: tl.constexpr, PN: tl.constexpr,
    HIGH: tl.constexpr, WIDE: tl.constexpr, NORM: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """norms (block columns, block rows) of activation (rows, features); HIGH x WIDE blocks a tile.

    PM and PN are BM and BN rounded up to powers of 2.
    """
    acc: tl.constexpr = norms.dtype.element_ty
    features = multiple(features, VECTOR)
    tile_row, tile_col = tl.program_id(1).to(tl.int64), tl.program_id(0)
    row, row_in = _inside(tl.arange(0, HIGH * PM), BM, PM)
    col, col_in = _inside(tl.arange(0, WIDE * PN), BN, PN)
    row, col = row + tile_row * HIGH * BM, col + tile_col * WIDE * BN
    live = ((row < rows) & row_in)[:, None] & ((col < features) & col_in)[None, :]
    x = tl.load(activation + row[:, None] * features + col[None, :], mask=live, other=0).to(acc)
    if NORM == 0:
        x = x * x
    else:
        x = tl.abs(x)
    if NORM == 2:  # as integers, which puts NaN above Inf
        key: tl.constexpr = tl.int64 if acc == tl.float64 else tl.int32
        bits = tl.reshape(x.to(key, bitcast=True), (HIGH * PM, WIDE, PN))
        within = tl.reshape(tl.max(bits, 2), (HIGH, PM, WIDE))
        norm = tl.max(within, 1).to(acc, bitcast=True)
    else:
        within = tl.reshape(tl.sum(tl.reshape(x, (HIGH * PM, WIDE, PN)), 2), (HIGH, PM, WIDE))
        norm = tl.sum(within, 1)
        if NORM == 0:
            norm = tl.sqrt_rn(norm) if acc == tl.float32 else tl.sqrt(norm)
    r = tile_row * HIGH + tl.arange(0, HIGH)[None, :]
    c = tile_col * WIDE + tl.arange(0, WIDE)[:, None]
    stored = (r < block_rows) & (c < block_cols)
    tl.store(norms + c.to(tl.int64) * block_rows + r, tl.trans(norm), mask=stored)


@triton.jit
def _gather(
    activation, position, scale, values, block_rows_out, rows, features, block_rows, nnz,
    BM: tl.constexpr, BN: tl.constexpr, PN: tl.constexpr, TILE: tl.constexpr,
    VECTOR: tl.constexpr,
):  # fmt: skip
    """Copy the blocks at `position` (flat in block columns x block rows) to values (nnz, BM, BN).

    A program copies TILE rows of blocks. Beyond a ragged edge: zeros.
    """
    features = multiple(features, VECTOR)
    q = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    block, height = q // BM, q % BM
    live = block < nnz
    at = tl.load(position + block, mask=live, other=0)
    column, block_row = at // block_rows, at % block_rows
    index = block_row.to(block_rows_out.dtype.element_ty)
    tl.store(block_rows_out + block, index, mask=live & (height == 0))
    row = block_row.to(tl.int64) * BM + height
    n = tl.arange(0, PN)
    col = column.to(tl.int64)[:, None] * BN + n[None, :]
    inside = (live & (row < rows))[:, None] & (col < features) & (n < BN)[None, :]
    x = tl.load(activation + row[:, None] * features + col, mask=inside, other=0)
    if scale is not None:
        x = x * tl.load(scale + block, mask=live, other=0)[:, None]
    out = values + q[:, None] * BN + n[None, :]
    tl.store(out, x.to(values.dtype.element_ty), mask=live[:, None] & (n < BN)[None, :])


@triton.jit
def _scatter(
    values, block_rows, column, dense, rows, features, nnz,
    BM: tl.constexpr, BN: tl.constexpr, PN: tl.constexpr, TILE: tl.constexpr,
    VECTOR: tl.constexpr,
):  # fmt: skip
    """The way back: values (nnz, BM, BN) into dense (rows, features), which holds zeros."""
    features = multiple(features, VECTOR)
    q = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    block = q // BM
    live = block < nnz
    row = tl.load(block_rows + block, mask=live, other=0).to(tl.int64) * BM + q % BM
    n = tl.arange(0, PN)
    col = tl.load(column + block, mask=live, other=0).to(tl.int64)[:, None] * BN + n[None, :]
    inside = (live & (row < rows))[:, None] & (col < features) & (n < BN)[None, :]
    x = tl.load(values + q[:, None] * BN + n[None, :], mask=inside)
    tl.store(dense + row[:, None] * features + col, x, mask=inside)


@triton.jit
def _grad_weight(
    values, scales, zeros, block_rows, colptr, grad_output, part_column, part_start, out,
    rows, out_features, features, length,
    BM: tl.constexpr, BN: tl.constexpr, PN: tl.constexpr,
    BITS: tl.constexpr, SPAN: tl.constexpr,
    BLOCK_O: tl.constexpr, BLOCK_K: tl.constexpr, SPLIT: tl.constexpr,
    DIRECT: tl.constexpr, PRECISION: tl.constexpr,
    VECTOR_X: tl.constexpr, VECTOR_Y: tl.constexpr,
):  # fmt: skip
    """Products of one part of a block column with one tile of out_features.

    values (kept rows, BN), or with scales codes (blocks, SPAN); a part is up to `length` kept rows.
    With part_column None, every column
    has SPLIT parts; otherwise part p belongs to column part_column[p] (the number of columns: none)
    and starts at kept row part_start[p] of it. DIRECT stores to out (out_features, features), else
    the part stands in out (parts, out_features, BN), fp32.
    """
    features, out_features = multiple(features, VECTOR_X), multiple(out_features, VECTOR_Y)
    part = tl.program_id(0).to(tl.int64)
    if part_column is None:
        column = part // SPLIT
        offset = part % SPLIT * length
    else:
        column = tl.load(part_column + part).to(tl.int64)
        offset = tl.load(part_start + part).to(tl.int64)
        if column * BN >= features:
            return
    begin = tl.load(colptr + column).to(tl.int64) * BM + offset
    end = tl.load(colptr + column + 1).to(tl.int64) * BM
    # from here on 32-bit positions within the part, which leave registers for the products
    count = tl.minimum(end - begin, length).to(tl.int32)
    block_rows += begin // BM
    skipped = (begin % BM).to(tl.int32)  # of the first block
    if scales is None:
        values += begin * BN
    else:
        values += begin // BM * SPAN
        scales += begin // BM
        if zeros is not None:
            zeros += begin // BM
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    n = tl.arange(0, PN)
    acc = tl.zeros((BLOCK_O, PN), tl.float32)
    for k in range(0, count, BLOCK_K):
        q = k + tl.arange(0, BLOCK_K)
        live = q < count
        if BM % BLOCK_K == 0:  # within one block: neighbouring rows of dY
            first = skipped + k
            block = tl.load(block_rows + first // BM).to(tl.int64)
            row = block * BM + first % BM + tl.arange(0, BLOCK_K)
        else:
            at = skipped + q
            row = tl.load(block_rows + at // BM, mask=live, other=0).to(tl.int64) * BM + at % BM
        usable = live & (row < rows)
        dy = tl.load(
            grad_output + row[:, None] * out_features + o[None, :],
            mask=usable[:, None] & (o < out_features)[None, :],
            other=0,
        )
        inside = live[:, None] & (n < BN)[None, :]
        if scales is None:
            x = tl.load(values + q[:, None] * BN + n[None, :], mask=inside, other=0)
        else:
            place = (skipped + q) // BM
            element = ((skipped + q) % BM * BN)[:, None] + n[None, :]
            byte = values + place[:, None] * SPAN + element % SPAN
            code = tl.load(byte, mask=inside, other=0)
            if BITS is None:
                x = fp8(code)
            else:
                zero = tl.load(zeros + place, mask=live, other=0)[:, None]
                x = levels(code, zero, element // SPAN * BITS, BITS)
            x *= tl.load(scales + place, mask=live, other=0)[:, None].to(tl.float32)
        acc = tl.dot(tl.trans(dy), x.to(dy.dtype), acc, input_precision=PRECISION)
    if DIRECT:
        col = column * BN + n
        at = out + o.to(tl.int64)[:, None] * features + col[None, :]
        mask = (o < out_features)[:, None] & ((n < BN) & (col < features))[None, :]
        tl.store(at, acc.to(out.dtype.element_ty), mask=mask)
    else:
        at = out + part * out_features * BN + (o[:, None] * BN + n[None, :])
        tl.store(at, acc, mask=(o < out_features)[:, None] & (n < BN)[None, :])


@triton.jit
def _sum_parts(
    parts, part_ptr, place, out, out_features, features,
    BN: tl.constexpr, PN: tl.constexpr, BLOCK_O: tl.constexpr, SPLIT: tl.constexpr,
    VECTOR_X: tl.constexpr,
):  # fmt: skip
    """out (out_features, features): the parts of each block column, added in their order.

    With part_ptr None every column has SPLIT parts; otherwise those of column c are
    part_ptr[place[c]] to part_ptr[place[c] + 1], and a column without parts becomes zeros.
    """
    features = multiple(features, VECTOR_X)
    column = tl.program_id(0).to(tl.int64)
    if part_ptr is None:
        begin, end = column * SPLIT, column * SPLIT + SPLIT
    else:
        at = tl.load(place + column)
        begin, end = tl.load(part_ptr + at).to(tl.int64), tl.load(part_ptr + at + 1).to(tl.int64)
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    n = tl.arange(0, PN)
    mask = (o < out_features)[:, None] & (n < BN)[None, :]
    acc = tl.zeros((BLOCK_O, PN), tl.float32)
    for part in range(begin, end):
        acc += tl.load(parts + (part * out_features + o)[:, None] * BN + n[None, :], mask=mask)
    col = column * BN + n
    mask = mask & (col < features)[None, :]
    at = out + o.to(tl.int64)[:, None] * features + col[None, :]
    tl.store(at, acc.to(out.dtype.element_ty), mask=mask)


def compress(
    activation: Tensor, block: Size, norm: str, selection: Selection, kind: str, draw: Tensor | None
) -> tuple[Tensor, ...]:
    activation, (bm, bn) = activation.contiguous(), block
    keep, _ = selection.kept(*map(blocks_along, activation.shape, block))
    norms = selection.weighed(block_norms(activation, bm, bn, norm), bm)
    position, colptr, scale = select(norms, keep, selection.scope, selection.draw)
    values, block_rows = gather_blocks(activation, position, scale, bm, bn)
    parts = (values,) if kind == SAME else encode(values.flatten(1), kind, draw)
    return *parts, block_rows, colptr


def block_norms(activation: Tensor, bm: int, bn: int, norm: str) -> Tensor:
    """Norm of every block, (block columns, block rows), fp32 (fp64 of fp64)."""
    rows, features = activation.shape
    grid, tiles, sizes = _norm_tiles(rows, features, bm, bn)
    norms = activation.new_empty(grid[1], grid[0], dtype=wide(activation.dtype))
    operands = activation, norms, rows, features, *grid
    launch(_block_norms, tiles, *operands, NORM=_NORMS[norm], **sizes)
    return norms


@lru_cache(maxsize=1024)
def _norm_tiles(rows: int, features: int, bm: int, bn: int) -> tuple[Size, Size, dict[str, int]]:
    """The grid of blocks, that of programs, and the kernel's sizes: they are the same every step,
    and to work them out takes as long as to launch a kernel."""
    grid = blocks_along(rows, bm), blocks_along(features, bn)
    pm, pn = power_of_2(bm), power_of_2(bn)
    across = max(1, 64 // pn)  # whole cache lines of X
    down = max(1, _TILE // (pm * pn * across))
    tiles = blocks_along(grid[1], across), blocks_along(grid[0], down)
    sizes = {"BM": bm, "BN": bn, "PM": pm, "PN": pn, "HIGH": down, "WIDE": across}
    return (
        grid,
        tiles,
        sizes | {"VECTOR": vector(features), "num_warps": 8 if pm * pn > _TILE else 4},
    )


def gather_blocks(
    activation: Tensor, position: Tensor, scale: Tensor | None, bm: int, bn: int
) -> tuple[Tensor, Tensor]:
    """values (nnz, bm, bn) and block_rows (nnz,) of the blocks at `position`."""
    rows, features = activation.shape
    grid = blocks_along(rows, bm)
    nnz = position.numel()
    values = activation.new_empty(nnz, bm, bn)
    block_rows = position.new_empty(nnz, dtype=index_dtype(grid))
    tiles, sizes = _tiles(nnz, bm, bn, features)
    operands = activation, position, scale, values, block_rows, rows, features, grid, nnz
    launch(_gather, tiles, *operands, **sizes)
    return values, block_rows


def to_dense(values: Kept, block_rows: Tensor, colptr: Tensor, shape: Size) -> Tensor:
    values = _decoded(values)
    dense = values.new_zeros(shape)
    if not values.numel():
        return dense
    tiles, sizes = _tiles(*values.shape, shape[1])
    column = search_columns(colptr, len(values))
    launch(_scatter, tiles, values, block_rows, column, dense, *shape, len(values), **sizes)
    return dense


@lru_cache(maxsize=1024)
def _tiles(nnz: int, bm: int, bn: int, features: int) -> tuple[tuple[int], dict[str, int]]:
    """Grid and sizes of a kernel that copies blocks (nnz, bm, bn), some rows a program."""
    pn = power_of_2(bn)
    tile = max(16, _TILE // pn)
    sizes = {"BM": bm, "BN": bn, "PN": pn, "TILE": tile, "VECTOR": vector(features)}
    return (blocks_along(nnz * bm, tile),), sizes


def grad_weight(
    values: Kept, block_rows: Tensor, colptr: Tensor, grad_output: Tensor, features: int, scope: str
) -> Tensor:
    nnz, bm, bn = values.shape
    parts = values.parts if isinstance(values, Quantized) else (values,)
    kind = values.kind if isinstance(values, Quantized) else ""
    stored, (scales, zeros) = parts[0], (*parts[1:], None, None)[:2]
    out_features = grad_output.shape[1]
    grad_output = grad_output.contiguous()
    out = grad_output.new_empty(out_features, features)
    columns = colptr.numel() - 1
    average = max(1, nnz * bm // columns)
    device, dtype = grad_output.device, grad_output.dtype
    plan = tuning.choose(device, dtype, average, out_features, features, (bm, bn))
    longest = _LONGEST_SUM if dtype == torch.float32 else _LONGEST_PART
    split = max(plan.split, blocks_along(average, longest))
    length = blocks_along(blocks_along(average, split), plan.block_k) * plan.block_k
    pn = max(16, power_of_2(bn))  # the least that a matrix instruction takes
    even = scope == "column"
    count, part_column, part_start, part_ptr, place = columns * split, None, None, None, None
    if not even:
        count = columns + nnz * bm // length  # columns of any lengths fit
        part_column, part_start, part_ptr, place = _divide(colptr, bm, length, count)
    direct = even and split == 1
    sums = out if direct else out.new_empty(count, out_features, bn, dtype=torch.float32)
    sizes = {"BN": bn, "PN": pn, "SPLIT": split if even else 0, "VECTOR_X": vector(features)}
    launch(
        _grad_weight,
        (count, blocks_along(out_features, plan.block_o)),
        *(stored, scales, zeros, block_rows, colptr, grad_output, part_column, part_start, sums),
        *(*grad_output.shape, features, length),
        BM=bm,
        BITS=BITS.get(kind),
        SPAN=None if scales is None else stored.shape[1],
        BLOCK_O=plan.block_o,
        BLOCK_K=plan.block_k,
        DIRECT=direct,
        PRECISION=_precision(dtype),
        VECTOR_Y=vector(out_features),
        # decoding fp8, four warps need more registers than sm_80 has
        num_warps=max(plan.num_warps, 8) if kind == "fp8" else plan.num_warps,
        num_stages=plan.num_stages,
        **sizes,
    )
    if not direct:
        grid = columns, blocks_along(out_features, _SUM_TILE)
        operands = sums, part_ptr, place, out, out_features, features
        launch(_sum_parts, grid, *operands, BLOCK_O=_SUM_TILE, **sizes)
    return out


def _decoded(values: Kept) -> Tensor:
    """All blocks, as actprune_kernels.quantization.dequantized, by our kernel."""
    if not isinstance(values, Quantized):
        return values
    width = values.shape[1] * values.shape[2]
    blocks = decode(values.parts, values.kind, width, factor(values.dtype))
    return blocks.view(values.shape).to(values.dtype)


def _divide(colptr: Tensor, bm: int, length: int, count: int) -> tuple[Tensor, ...]:
    """Parts of up to `length` kept rows, those of the longest columns first.

    Returns part_column and part_start (count,), part_ptr (columns + 1,) by place in that order, and
    place (columns,). What is left over of `count` has the number of columns as its column.
    """
    kept_rows = colptr.long().diff() * bm
    order = kept_rows.argsort(descending=True, stable=True)
    part_ptr = F.pad(((kept_rows[order] + length - 1) // length).cumsum(0), (1, 0))
    part = torch.arange(count, device=colptr.device)
    slot = torch.searchsorted(part_ptr[1:], part, right=True)
    part_column = F.pad(order, (0, 1), value=order.numel())[slot]
    return part_column, (part - part_ptr[slot]) * length, part_ptr, order.argsort()


def vector(size: int) -> int:
    """Elements that can move at once in rows of `size`: 8 at most, 16 bytes of half precision."""
    return math.gcd(size, 8)


def _precision(dtype: torch.dtype) -> str:
    """tf32 where torch multiplies fp32 so too (torch.set_float32_matmul_precision)."""
    fast = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return "tf32" if fast else "ieee"
