"""What every strategy is, and the replacement of a module's forward that most are made of."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, ClassVar

from torch import nn

from actprune.formats import Format
from actprune.saved.rules import Rule
from actprune_common.errors import InputError


class Replacement:
    """A module's forward, called in place of the one that was there, which is `replaced`.

    It stands in the module's own __dict__, so that class, names, hooks and state_dict stay, and
    goes along into copies.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.beneath: Callable[..., Any] | None = None
        """Another replacement, anybody's; None: the class's own forward."""

    def replaced(self, *args: Any, **kwargs: Any) -> Any:
        """Call what this one replaces."""
        if self.beneath is not None:
            return self.beneath(*args, **kwargs)
        return type(self.module).forward(self.module, *args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        """That of what it replaces: trainers ask a model's forward which inputs it takes."""
        replaced = self.beneath or MethodType(type(self.module).forward, self.module)
        return inspect.signature(replaced)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call what this one replaces, with what it does about it."""
        raise NotImplementedError


def replacements(module: nn.Module) -> list[Replacement]:
    """Return the replacements of a module's forward, the outermost first."""
    found, forward = [], vars(module).get("forward")
    while isinstance(forward, Replacement):
        found.append(forward)
        forward = forward.beneath
    return found


def replace(module: nn.Module, made: Replacement, *, innermost: bool = False) -> None:
    """Let `made` be a module's forward, around the replacements that it has or within them."""
    outer = replacements(module)
    if innermost and outer:
        made.beneath, outer[-1].beneath = outer[-1].beneath, made
    else:
        made.beneath = vars(module).get("forward")
        module.forward = made


def put_back(module: nn.Module, kind: type[Replacement]) -> None:
    """Take a module's replacements of one kind away; those of others stay."""
    found = replacements(module)
    if not any(isinstance(one, kind) for one in found):
        return
    forward = found[-1].beneath
    for one in reversed(found):
        if not isinstance(one, kind):
            one.beneath, forward = forward, one
    del module.forward
    if forward is not None:
        module.forward = forward


@dataclass(frozen=True)
class Strategy:
    """What is done to a model beside the formats of its layers; it stands in STRATEGIES."""

    name: str
    of_blocks: ClassVar[bool] = False
    """Whether it decides what each block keeps; a plan has one such at most."""
    hides: ClassVar[bool] = False
    """Whether it keeps tensors that autograd does not hold."""
    compiles: ClassVar[bool] = False
    """Whether autograd then holds all that the model keeps, whatever another strategy hides."""
    replacement: ClassVar[type[Replacement] | None] = None
    """What takes the place of forwards, where that is how it is done."""

    @property
    def spec(self) -> str:
        """The strategy as text, as it stands in a plan."""
        return self.name

    def given(self, argument: str) -> "Strategy":
        """Return the strategy with what stands in parentheses behind its name.

        Raises InputError where it takes nothing.
        """
        raise InputError(f"spec: strategy {self.name!r} takes nothing in parentheses: {argument!r}")

    def check(self, formats: Sequence[Format], spec: str) -> None:
        """Raise InputError where the strategy does not fit the formats of the plan `spec`."""

    def apply(self, model: nn.Module, rules: Sequence[Rule] = ()) -> None:
        """Do it to `model`, in place. Raises InputError where it cannot be done.

        rules: on all that autograd saves, for a strategy that compiles: it carries them out.
        """
        if self.replacement is not None:
            replace(model, self.replacement(model))

    def undo(self, model: nn.Module) -> None:
        """Undo what `apply` did to `model`, if it did."""
        if self.replacement is not None:
            for module in model.modules():
                put_back(module, self.replacement)
