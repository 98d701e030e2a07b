"""recompute: products, too, are run again where their operands are kept."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from actprune.formats import Format
from actprune.strategies.base import Strategy, replacements
from actprune.strategies.saving import AT, Saving
from actprune_common.errors import InputError


@dataclass(frozen=True)
class Recompute(Strategy):
    """Beside rules with @: what a product gives is computed again from its operands' stores."""

    name: str = "recompute"

    def check(self, formats: Sequence[Format], spec: str) -> None:
        """Raise InputError without such rules, which say what is kept of the operands."""
        if AT not in spec:
            raise InputError(f"spec: recompute expects rules with @, got {spec!r}")

    def apply(self, model: nn.Module) -> None:
        """Let what keeps the rules of `model` run products again; they are undone with it."""
        for one in replacements(model):
            if isinstance(one, Saving):
                one.products = True
