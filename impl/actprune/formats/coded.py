"""Composite stores: what is kept, with its values in fewer bits (actprune_kernels.codes)."""

from dataclasses import dataclass

from torch import Tensor

from actprune.formats.base import PruningFormat, check_option
from actprune_kernels.quantization import BITS, KINDS, SAME


@dataclass(frozen=True, kw_only=True)
class CodedFormat(PruningFormat):
    """The options of a pruning format whose values may be coded.

    int8, int4 and int2 round stochastically and keep the store unbiased; bf16 and fp8 round to the
    nearest. Every block has a scale of its own.
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
        """What the coding takes: None where it rounds to the nearest or not at all."""
        if self.values not in BITS:
            return None
        return self.first_draw() if draw is None else draw
