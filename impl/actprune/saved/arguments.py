"""Arguments of a function as a recipe holds them, so that they can be had again."""

from typing import Any

from torch import Tensor, nn

from actprune.saved.known import Known
from actprune.saved.tensors import is_plain, is_small, key_of, without_graph
from actprune.saved.values import Given, Value, View

Taken = tuple[tuple[Any, ...], dict[str, Any], list[Value]]


class Arguments:
    """Turns tensors into views of values; weights, and what is small, stay tensors."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self.buffers: dict[int, list[Given]] = {}
        """What recipes read of them: some are updated in the forward pass."""

    def before_write(self, buffer: Tensor) -> None:
        """Let what reads a buffer hold a copy, as it is about to change."""
        for held in self.buffers.pop(key_of(buffer), ()):
            held.keep()

    def taken(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], written: tuple[Any, ...] = ()
    ) -> Taken:
        """Return arguments as a recipe holds them, and the values among them.

        written: those that the function will write to.
        """
        parents: list[Value] = []
        # a function within this one that called itself would hold the values until it is collected
        found = tuple([self._held(part, written, parents) for part in args])
        if not kwargs:
            return found, {}, parents
        named = {name: self._held(part, written, parents) for name, part in kwargs.items()}
        return found, named, parents

    def _held(self, part: Any, written: tuple[Any, ...], parents: list[Value]) -> Any:
        if not isinstance(part, Tensor):
            if not isinstance(part, list | tuple):
                return part
            taken = [self._held(each, written, parents) for each in part]
            return taken if isinstance(part, list) else tuple(taken)
        known, small = self._known, is_small(part)
        parameter = type(part) is nn.Parameter
        plain, lent = not parameter and is_plain(part), parameter and known.is_lent(part)
        owned = plain and key_of(part) in known.weights
        if (plain or lent) and not owned and (not small or any(part is each for each in written)):
            value = known.value(part)
            parents.append(value)
            return View(value, part)
        if lent or (plain and small) or part.is_inference():
            part = part.detach().clone()  # others may write to it, or it is of more
            return Given(part, part._version)
        held = Given(without_graph(part), part._version)
        if owned:
            self.buffers.setdefault(key_of(part), []).append(held)
        return held
