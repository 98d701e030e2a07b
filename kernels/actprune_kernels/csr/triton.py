"""CSR on the GPU: elements are 1x1 blocks; the product adds rows of dY, column by column.

A program owns one column of X and a tile of out_features, walks the column's elements in sequence,
and stores once: fixed order, no atomics. Single elements leave the matrix units idle, so the bound
is the traffic of dY's rows: one row for every element kept.

dW is made transposed and then copied: neighbours in a column of dW lie `features` apart, and to
write whole cache lines a program would have to walk many columns one after the other, which leaves
most of a GPU idle. The copy is one row of dW for each column, next to a row of dY per element.

A column is never divided: with `global` or `row` scope one that is kept whole takes as many steps
as X has rows / 32, however short the others are. Longest first is all that is done about it.

The choices follow from counting programs and bytes: unmeasured, no GPU was at hand.
"""

import triton
import triton.language as tl
from torch import Tensor

from actprune_kernels.bsr import triton as bsr
from actprune_kernels.launch import launch
from actprune_kernels.selection import Selection
from actprune_kernels.selection.triton import select
from actprune_kernels.sizes import Size, blocks_along

_STEP = 32  # elements of a column in flight: 8 KiB of dY in half precision
_TILE = 128


@triton.jit
def _grad_weight(
    values, rows, colptr, order, grad_output, out, out_features,
    STEP: tl.constexpr, TILE: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """out (features, out_features): for each column of X the weighted sum of dY's rows.

    order (features,) gives the columns in the order of the programs; None: as they come.
    """
    out_features = bsr.multiple(out_features, VECTOR)
    column = tl.program_id(0).to(tl.int64)
    if order is not None:
        column = tl.load(order + column).to(tl.int64)
    begin = tl.load(colptr + column).to(tl.int64)
    end = tl.load(colptr + column + 1).to(tl.int64)
    o = tl.program_id(1) * TILE + tl.arange(0, TILE)
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
    total = tl.sum(acc, 0).to(out.dtype.element_ty)
    tl.store(out + column * out_features + o, total, mask=o < out_features)


def compress(activation: Tensor, selection: Selection) -> tuple[Tensor, Tensor, Tensor]:
    activation = activation.contiguous()
    keep, _ = selection.kept(*activation.shape)
    magnitudes = selection.weighed(bsr.block_norms(activation, 1, 1, "max"))
    position, colptr, scale = select(magnitudes, keep, selection.scope, selection.draw)
    values, rows = bsr.gather_blocks(activation, position, scale, 1, 1)
    return values.view(-1), rows, colptr


def grad_weight(
    values: Tensor, rows: Tensor, colptr: Tensor, grad_output: Tensor, features: int
) -> Tensor:
    """Accumulates in fp32."""
    grad_output = grad_output.contiguous()
    out_features = grad_output.shape[1]
    out = grad_output.new_empty(features, out_features)
    tiles, sizes = blocks_along(out_features, _TILE), {"STEP": _STEP, "TILE": _TILE}
    order = _longest_first(colptr, values.numel())
    operands = values, rows, colptr, order, grad_output, out, out_features
    launch(_grad_weight, (features, tiles), *operands, VECTOR=bsr.vector(out_features), **sizes)
    return out.t().contiguous()


def _longest_first(colptr: Tensor, nnz: int) -> Tensor | None:
    """The columns (features,) by falling length; None where all may be equally long.

    With `column` scope nnz is a multiple of the columns. Where it is one by chance, the columns
    come as they are: the order decides when a sum is made, never its value.
    """
    even = nnz % (colptr.numel() - 1) == 0
    return None if even else colptr.diff().argsort(descending=True)


def to_dense(values: Tensor, rows: Tensor, colptr: Tensor, shape: Size) -> Tensor:
    return bsr.to_dense(values.view(-1, 1, 1), rows, colptr, shape)
