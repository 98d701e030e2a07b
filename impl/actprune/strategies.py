"""What is done to a model to keep less: a format for its linears, and strategies beside it.

Written before the format and joined by +: `lean+bsr:block=1x32,sparsity=0.9`, `checkpoint+dense`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from actprune.convert import convert, revert
from actprune.errors import InputError
from actprune.formats import Format, parse
from actprune.lean import lean, unlean
from actprune.models.resmlp import Block

STRATEGIES = ("checkpoint", "lean", "lean-exact")
"""checkpoint: every ResMLP block is computed again in the backward pass; lean: actprune.lean;
lean-exact: the same, with GELU's input kept whole."""
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Plan:
    """A format, and at most one strategy."""

    format: Format
    strategy: str = ""

    @property
    def spec(self) -> str:
        """As text; `read` reads it back."""
        return f"{self.strategy}+{self.format.spec}" if self.strategy else self.format.spec


def read(spec: str) -> Plan:
    """The plan that a spec describes. Raises InputError naming what is wrong in it."""
    strategy, plus, format = spec.rpartition("+") if isinstance(spec, str) else ("", "", spec)
    if plus and strategy.strip() not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise InputError(f"spec: expected a strategy of {known} before '+', got {strategy!r}")
    return Plan(parse(format), strategy.strip())


def apply(
    model: Model, spec: str, include: str | Iterable[str] = "*", exclude: str | Iterable[str] = ()
) -> Model:
    """Convert `model` in place as a spec says; returns it. Raises as convert and lean do."""
    plan = read(spec)
    if plan.format.spec != "dense":
        convert(model, plan.format, include, exclude)
    if plan.strategy == "checkpoint":
        return checkpointed(model)
    return lean(model, exact=plan.strategy == "lean-exact") if plan.strategy else model


class CheckpointedBlock(Block):
    """A Block that keeps its input alone and is computed again in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, patches, dim) to the same shape."""
        if not self.training:
            return super().forward(x)
        # reentrant: the other kind hides its inputs from the hooks that count saved bytes
        out: Tensor = checkpoint(super().forward, x, use_reentrant=True)
        return out


def undo(model: Model) -> Model:
    """Turn every block and linear of `model` back into the plain one that it was; returns it."""
    for module in model.modules():
        if isinstance(module, CheckpointedBlock):
            module.__class__ = Block  # type: ignore[assignment]
    unlean(model)
    return revert(model)


def checkpointed(model: Model) -> Model:
    """Make every ResMLP block of `model` checkpointed, in place. Raises InputError without one."""
    found = [module for module in model.modules() if type(module) is Block]
    if not found:
        raise InputError("checkpoint: expected a model with ResMLP blocks, got one without")
    for block in found:
        block.__class__ = CheckpointedBlock
    return model
