"""weighted: the selection of a sample's rows is weighed by what the sample is worth."""

from collections.abc import Sequence
from dataclasses import dataclass

from actprune.formats import Format
from actprune.strategies.base import Strategy
from actprune_common.errors import InputError


@dataclass(frozen=True)
class Weighted(Strategy):
    """It changes no model: training calls actprune.weigh before a batch, as actprune train does."""

    name: str = "weighted"

    def check(self, formats: Sequence[Format], spec: str) -> None:
        """Raise InputError unless what selects draws: weights would bias the largest."""
        selecting = [getattr(format, "select", None) for format in formats]
        if "priority" not in selecting or "topk" in selecting:
            raise InputError(f"weighted: expected formats with select=priority, got {spec!r}")
