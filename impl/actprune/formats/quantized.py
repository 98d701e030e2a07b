"""Composite stores: what is kept, with its values in fewer bits (actprune_kernels.quantization)."""

from dataclasses import dataclass

from torch import Tensor

from actprune.formats.base import Compressed, PruningFormat, check_option
from actprune_kernels.quantization import BITS, FIELDS, KINDS, SAME, Quantized


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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("values", self.values, (SAME, *KINDS))

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return self.select == "priority" or self.values in BITS

    @property
    def exact(self) -> bool:  # type: ignore[override]
        return self.values == SAME

    def rounding_draw(self, draw: Tensor | None) -> Tensor | None:
        """What the quantization takes: None where it rounds to the nearest or not at all."""
        if self.values not in BITS:
            return None
        return self.first_draw() if draw is None else draw

    def kept_values(self, compressed: Compressed, block: tuple[int, int]) -> Tensor | Quantized:
        """The values of a store as the kernels take them."""
        if self.values == SAME:
            return compressed.tensors["values"]
        parts = tuple(compressed.tensors[name] for name in FIELDS[self.values])
        return Quantized(parts, self.values, (len(parts[0]), *block), compressed.dtype)
