"""Composite stores: what is kept, with its values in fewer bits (actprune_kernels.quantization)."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from actprune.formats.base import Compressed, PruningFormat
from actprune_common.errors import check_one_of
from actprune_kernels.quantization import BITS, FIELDS, KINDS, SAME, Quantized
from actprune_kernels.sizes import Size, index_dtype


@dataclass(frozen=True, kw_only=True)
class QuantizedFormat(PruningFormat):
    """The options of a pruning format whose values may be kept in fewer bits.

    Args:
        values: "same" keeps them as they are. "int8", "int4" and "int2" round stochastically and
            keep the store unbiased; "bf16" and "fp8" round to the nearest. Every block (of csr
            every 64 neighbours in the order of storage) has a scale of its own.

    The other options are those of PruningFormat. Raises InputError on another value.
    """

    values: str = SAME
    index: ClassVar[tuple[str, str]]
    """The names of the tensors beside the values."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("values", self.values, (SAME, *KINDS))

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return self.select == "priority" or self.values in BITS

    @property
    def exact(self) -> bool:  # type: ignore[override]
        return self.values == SAME

    def rounding_draw(self, draw: Tensor | None) -> Tensor | None:
        """What the quantization takes: None where it rounds to the nearest or not at all."""
        return self.drawn(draw, self.values in BITS)

    @property
    def fields(self) -> tuple[str, ...]:
        return *FIELDS[self.values], *self.index

    @abstractmethod
    def block_of(self, rows: int, features: int) -> Size:
        """The values of an activation that share a scale, as they are stored: high and wide."""

    def empty_index(self, like: Tensor, nnz: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Uninitialised tensors for the row of each of `nnz`, and for where each column starts."""
        colptr = like.new_empty(columns + 1, dtype=index_dtype(nnz))
        return like.new_empty(nnz, dtype=index_dtype(rows)), colptr

    def operands(self, compressed: Compressed, kernel: str) -> dict[str, Any]:
        operands: dict[str, Any] = compressed.tensors
        if self.values != SAME:
            parts = tuple(operands.pop(name) for name in FIELDS[self.values])
            shape = len(parts[0]), *self.block_of(*compressed.shape)
            operands["values"] = Quantized(parts, self.values, shape, compressed.dtype)
        return operands
