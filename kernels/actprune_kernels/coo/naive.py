"""COO by masking and one dense product: the definition."""

from torch import Tensor

from actprune_kernels.selection import naive as selection
from actprune_kernels.selection import weighed
from actprune_kernels.sizes import index_dtype, kept, wide


def compress(
    activation: Tensor,
    sparsity: float,
    scope: str,
    draw: Tensor | None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    height, features = activation.shape
    keep, _ = kept(height, features, sparsity, scope)
    transposed = activation.t()
    magnitudes = weighed(transposed.abs().to(wide(activation.dtype)), weights)
    mask, scale = selection.select(magnitudes, keep, scope, draw)
    values = transposed[mask]
    if scale is not None:
        values = (values * scale).to(activation.dtype)
    column, row = mask.nonzero(as_tuple=True)
    return values, row.to(index_dtype(height)), column.to(index_dtype(features))


def to_dense(values: Tensor, rows: Tensor, columns: Tensor, height: int, features: int) -> Tensor:
    dense = values.new_zeros(height, features)
    dense[rows.long(), columns.long()] = values
    return dense


def grad_weight(
    values: Tensor, rows: Tensor, columns: Tensor, grad_output: Tensor, features: int
) -> Tensor:
    acc = wide(grad_output.dtype)
    dense = to_dense(values, rows, columns, grad_output.shape[0], features).to(acc)
    return (grad_output.to(acc).t() @ dense).to(grad_output.dtype)
