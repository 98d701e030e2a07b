"""recompute: products, too, are run again where their operands are kept."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from actprune.formats import Format
from actprune.saved.rules import AT, Rule
from actprune.strategies.base import Strategy, replacements
from actprune.strategies.saving import Saving
from actprune_common.errors import InputError


@dataclass(frozen=True)
class Recompute(Strategy):
    """Beside rules with @: what a product gives is computed again from its operands' stores."""

    name: str = "recompute"

    def check(self, formats: Sequence[Format], spec: str) -> None:
        """Raise InputError without such rules, which say what is kept of the operands."""
        if AT not in spec:
            raise InputError(f"spec: recompute expects rules with @, got {spec!r}")
        if "compile" in {part.partition("(")[0] for part in spec.split("+")}:
            raise InputError(
                "spec: recompute is eager mode's; under compile a budget says how much is computed "
                f"again, as in compile(0.1)+@*=>codes:bits=4, got {spec!r}"
            )

    def apply(self, model: nn.Module, rules: Sequence[Rule] = ()) -> None:
        """Let what keeps the rules of `model` run products again; they are undone with it."""
        for one in replacements(model):
            if isinstance(one, Saving):
                one.products = True
