"""COO by masking and one dense product: the definition."""

from torch import Tensor

from actprune_kernels.selection import Selection, scaled
from actprune_kernels.selection.naive import select
from actprune_kernels.sizes import Size, index_dtype, wide


def compress(activation: Tensor, selection: Selection) -> tuple[Tensor, Tensor, Tensor]:
    height, features = activation.shape
    keep, _ = selection.kept(height, features)
    transposed = activation.t()
    magnitudes = selection.weighed(transposed.abs().to(wide(activation.dtype)))
    mask, scale = select(magnitudes, keep, selection.scope, selection.draw)
    column, row = mask.nonzero(as_tuple=True)
    rows, columns = row.to(index_dtype(height)), column.to(index_dtype(features))
    return scaled(transposed[mask], scale), rows, columns


def to_dense(values: Tensor, rows: Tensor, columns: Tensor, shape: Size) -> Tensor:
    dense = values.new_zeros(shape)
    dense[rows.long(), columns.long()] = values
    return dense


def grad_weight(
    values: Tensor, rows: Tensor, columns: Tensor, grad_output: Tensor, features: int
) -> Tensor:
    acc = wide(grad_output.dtype)
    dense = to_dense(values, rows, columns, (len(grad_output), features)).to(acc)
    return (grad_output.to(acc).t() @ dense).to(grad_output.dtype)
