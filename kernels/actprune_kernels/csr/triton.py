"""CSR on the GPU: elements are 1x1 blocks; the product adds rows of dY, column by column.

A program owns some neighbouring columns of X and a tile of out_features, walks each column's
elements in sequence, and stores once: fixed order, no atomics. Single elements leave the matrix
units idle, so the bound is the traffic of dY's rows: one row for every element kept.
"""

import triton
import triton.language as tl
from torch import Tensor

from actprune_kernels.bsr import triton as bsr
from actprune_kernels.csr import naive
from actprune_kernels.launch import launch
from actprune_kernels.selection import triton as selection
from actprune_kernels.sizes import kept

_COLUMNS = 16  # neighbours in dW: whole sectors of 32 bytes are stored in half precision
_STEP = 16  # elements of a column in flight
_TILE = 128


@triton.jit
def _grad_weight(
    values,
    rows,
    colptr,
    grad_output,
    out,
    features,
    out_features,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    TILE: tl.constexpr,
    VECTOR_X: tl.constexpr,
    VECTOR_Y: tl.constexpr,
):
    """out (out_features, features), a tile of COLUMNS x TILE: the weighted sums of dY's rows."""
    features = bsr.multiple(features, VECTOR_X)
    out_features = bsr.multiple(out_features, VECTOR_Y)
    first = tl.program_id(0) * COLUMNS
    o = tl.program_id(1) * TILE + tl.arange(0, TILE)
    place = tl.arange(0, COLUMNS)
    sums = tl.zeros((TILE, COLUMNS), tl.float32)
    for i in range(COLUMNS):
        column = tl.minimum(first + i, features - 1)
        begin = tl.load(colptr + column).to(tl.int64)
        end = tl.load(colptr + column + 1).to(tl.int64)
        acc = tl.zeros((STEP, TILE), tl.float32)
        for k in range(begin, end, STEP):
            at = k + tl.arange(0, STEP)
            live = at < end
            row = tl.load(rows + at, mask=live, other=0).to(tl.int64)
            x = tl.load(values + at, mask=live, other=0).to(tl.float32)
            dy = tl.load(
                grad_output + row[:, None] * out_features + o[None, :],
                mask=live[:, None] & (o < out_features)[None, :],
                other=0,
            )
            acc += x[:, None] * dy.to(tl.float32)
        sums = tl.where((place == i)[None, :], tl.sum(acc, 0)[:, None], sums)
    column = first + place
    to = out + o.to(tl.int64)[:, None] * features + column[None, :]
    mask = (o < out_features)[:, None] & (column < features)[None, :]
    tl.store(to, sums.to(out.dtype.element_ty), mask=mask)


def compress(
    activation: Tensor, sparsity: float, scope: str, draw: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    if not activation.numel():
        return naive.compress(activation, sparsity, scope, None)
    activation = activation.contiguous()
    height, features = activation.shape
    keep, _ = kept(height, features, sparsity, scope)
    magnitudes = bsr.block_norms(activation, 1, 1, "max")
    position, colptr, scale = selection.select(magnitudes, keep, scope, draw)
    values, rows = bsr.gather_blocks(activation, position, scale, 1, 1)
    return values.view(-1), rows, colptr


def grad_weight(values: Tensor, rows: Tensor, colptr: Tensor, grad_output: Tensor) -> Tensor:
    """Accumulates in fp32."""
    grad_output = grad_output.contiguous()
    features, out_features = colptr.numel() - 1, grad_output.shape[1]
    out = grad_output.new_empty(out_features, features)
    if not values.numel() or not out.numel():
        return out.zero_()
    launch(
        _grad_weight,
        (triton.cdiv(features, _COLUMNS), triton.cdiv(out_features, _TILE)),
        values=values,
        rows=rows,
        colptr=colptr,
        grad_output=grad_output,
        out=out,
        features=features,
        out_features=out_features,
        COLUMNS=_COLUMNS,
        STEP=_STEP,
        TILE=_TILE,
        VECTOR_X=bsr.vector(features),
        VECTOR_Y=bsr.vector(out_features),
    )
    return out


def to_dense(values: Tensor, rows: Tensor, colptr: Tensor, height: int) -> Tensor:
    return bsr.to_dense(values.view(-1, 1, 1), rows, colptr, height, colptr.numel() - 1)
