"""lean, lean-4bit and lean-exact: actprune.lean, in a plan."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from actprune.saved.rules import Rule
from actprune.strategies.base import Strategy
from actprune.strategies.lean import lean, unlean


@dataclass(frozen=True)
class Lean(Strategy):
    """actprune.lean, with 2 bits of GELU's derivative, with 4, or with GELU's input whole."""

    gelu: int | None
    of_blocks = True

    def apply(self, model: nn.Module, rules: Sequence[Rule] = ()) -> None:
        """Make `model` lean. Raises InputError where it has no chain."""
        lean(model, gelu=self.gelu)

    def undo(self, model: nn.Module) -> None:
        """Turn everything lean in `model` back."""
        unlean(model)
