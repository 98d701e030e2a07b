"""BSR of Xᵀ: whole blocks in block-column order."""

from dataclasses import dataclass

from torch import Tensor

from actprune.errors import InputError
from actprune.formats.base import PruningFormat, check_option
from actprune.formats.spec import write_spec
from actprune_kernels.backends import kernels
from actprune_kernels.sizes import NORMS, blocks_along, index_dtype, kept

LARGEST_BLOCK = 128


@dataclass(frozen=True, kw_only=True)
class Bsr(PruningFormat):
    """Prunes blocks of bm rows by bn features; ragged edges are allowed."""

    block: tuple[int, int] = (32, 32)
    norm: str = "l2"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(1 <= size <= LARGEST_BLOCK for size in self.block):
            height, width = self.block
            raise InputError(
                f"block: expected 1x1 to {LARGEST_BLOCK}x{LARGEST_BLOCK}, got {height}x{width}"
            )
        check_option("norm", self.norm, NORMS)

    @property
    def spec(self) -> str:
        return write_spec("bsr", self)

    def store(self, activation: Tensor, draw: Tensor | None) -> tuple[Tensor, ...]:
        kernel = kernels("bsr", self.backend, activation.device, activation.dtype)
        values, block_rows, colptr = kernel.compress(
            activation,
            *self.block,
            self.sparsity,
            self.scope,
            self.norm,
            self.selection_draw(draw),
        )
        return values, block_rows, colptr

    def empty(self, activation: Tensor) -> tuple[Tensor, ...]:
        block_rows = blocks_along(activation.shape[0], self.block[0])
        block_cols = blocks_along(activation.shape[1], self.block[1])
        _, nnz = kept(block_rows, block_cols, self.sparsity, self.scope)
        return (
            activation.new_empty(nnz, *self.block),
            activation.new_empty(nnz, dtype=index_dtype(block_rows)),
            activation.new_empty(block_cols + 1, dtype=index_dtype(nnz)),
        )

    def product(self, buffers: tuple[Tensor, ...], grad_output: Tensor, features: int) -> Tensor:
        kernel = kernels("bsr", self.backend, grad_output.device, grad_output.dtype)
        result: Tensor = kernel.grad_weight(*buffers, grad_output, features, self.scope)
        return result

    def expand(self, buffers: tuple[Tensor, ...], rows: int, features: int) -> Tensor:
        kernel = kernels("bsr", self.backend, buffers[0].device, buffers[0].dtype)
        result: Tensor = kernel.to_dense(*buffers, rows, features)
        return result
