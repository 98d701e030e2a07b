"""compile: torch.compile of the whole model."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from actprune.formats import Format
from actprune.strategies.base import Strategy
from actprune.strategies.saving import AT
from actprune_common.errors import InputError


@dataclass(frozen=True)
class Compile(Strategy):
    """torch.compile of the whole model, for one batch size; another is compiled anew."""

    name: str = "compile"
    compiles = True

    def check(self, formats: Sequence[Format], spec: str) -> None:
        """Raise InputError for rules on all that autograd saves, which a graph does not show."""
        if AT in spec:
            raise InputError(f"spec: rules with @ do not reach a compiled graph, got {spec!r}")

    def apply(self, model: nn.Module) -> None:
        """Let calls of `model` be compiled ones."""
        model.compile(dynamic=False)

    def undo(self, model: nn.Module) -> None:
        """Let calls of `model` be its own again."""
        model._compiled_call_impl = None
