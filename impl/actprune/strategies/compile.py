"""compile: torch.compile of the whole model, which may hold less between its two passes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from importlib import import_module
from types import FunctionType
from typing import Any

import torch
from torch import nn

from actprune.formats import Derivative, Format
from actprune.graph.limits import limit_text
from actprune.saved.rules import Rule
from actprune.strategies.base import Strategy
from actprune_common.errors import InputError


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
        return changed(self, budget=limit_text(f"{self.name}()", argument))

    def check(self, formats: Sequence[Format], spec: str) -> None:
        """Raise InputError on what no compiled graph holds."""
        if any(isinstance(format, Derivative) for format in formats):
            raise InputError(f"spec: derivative serves no compiled graph, got {spec!r}")

    def apply(self, model: nn.Module, rules: Sequence[Rule] = ()) -> None:
        """Let calls of `model` be compiled ones; what autograd saves is kept as rules say.

        Copies are not compiled: torch leaves out of them what it compiled.
        """
        planned: Any = None
        if self.budget is not None or rules:  # late: it imports torch's compiler
            graph: Any = import_module("actprune.graph.compiling")
            planned = graph.backend(budget=self.budget, rules=rules)
        _compile(model, planned)

    def undo(self, model: nn.Module) -> None:
        """Let calls of `model` be its own again."""
        model._compiled_call_impl = None


def compile_alike(twin: nn.Module, model: nn.Module) -> bool:
    """Compile a copy of `model` by the same budget and rules; False where there are none."""
    planned = getattr(model._compiled_call_impl, "actprune_backend", None)
    if planned is not None:
        _compile(twin, type(planned)(planned.settings, planned.compiler))
    return planned is not None


def _compile(model: nn.Module, planned: Any) -> None:
    call: Any = torch.compile(_call_of(model), dynamic=False, backend=planned or "inductor")
    call.actprune_backend = planned  # for graph.plan_of
    model._compiled_call_impl = call


def _call_of(model: nn.Module) -> Callable[..., Any]:
    """What calls `model`, for torch.compile.

    torch skips the frames of its own modules, so that a bare nn.Sequential would run as it is; and
    it counts by the code of a function what it compiles, so that many models would reach its limit.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        return model._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]

    code = call.__code__.replace()
    return FunctionType(code, call.__globals__, "call", None, call.__closure__)
