"""compile: torch.compile of the whole model, which may hold less between its two passes."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as changed

from torch import nn

from actprune.graph.backend import backend, limit_of
from actprune.saved.rules import Rule
from actprune.strategies.base import Strategy


@dataclass(frozen=True)
class Compile(Strategy):
    """torch.compile of the whole model, for one batch size; another is compiled anew.

    compile(0.1) holds a tenth of what a compiled dense model holds: what of it is kept, computed
    again or held in few bits, actprune.graph decides. Rules with @ say what may be held as what.
    """

    name: str = "compile"
    budget: str | None = None
    """Bytes or a share, as text; without it, rules alone decide."""
    compiles = True

    @property
    def spec(self) -> str:
        """Such as compile, or compile(0.1)."""
        return self.name if self.budget is None else f"{self.name}({self.budget})"

    def given(self, argument: str) -> Strategy:
        """Return the strategy within a budget. Raises InputError where it is none."""
        limit_of(f"{self.name}()", argument)
        return changed(self, budget=argument.strip())

    def apply(self, model: nn.Module, rules: Sequence[Rule] = ()) -> None:
        """Let calls of `model` be compiled ones; what autograd saves is kept as rules say."""
        plain = self.budget is None and not rules
        model.compile(
            dynamic=False,
            backend="inductor" if plain else backend(budget=self.budget, rules=rules),
        )

    def undo(self, model: nn.Module) -> None:
        """Let calls of `model` be its own again."""
        model._compiled_call_impl = None
