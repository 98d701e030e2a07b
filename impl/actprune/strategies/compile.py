"""compile: torch.compile of the whole model."""

from dataclasses import dataclass

from torch import nn

from actprune.strategies.base import Strategy


@dataclass(frozen=True)
class Compile(Strategy):
    """torch.compile of the whole model, for one batch size; another is compiled anew."""

    name: str = "compile"
    compiles = True

    def apply(self, model: nn.Module) -> None:
        """Let calls of `model` be compiled ones."""
        model.compile(dynamic=False)

    def undo(self, model: nn.Module) -> None:
        """Let calls of `model` be its own again."""
        model._compiled_call_impl = None
