"""What is known of the tensors of a forward pass: what their storages hold, which are weights."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from actprune.saved.tensors import is_plain, is_strided, key_of
from actprune.saved.values import Value


class Known:
    """The values of a forward pass, by storage, and what is the model's own or the caller's."""

    def __init__(self, weights: Iterable[Tensor], inputs: Iterable[Any]) -> None:
        self.weights = {key_of(weight) for weight in weights if is_strided(weight)}
        self.inputs = {key_of(part) for part in inputs if is_plain(part)}
        """What takes a gradient without being a weight."""
        self.values: dict[int, Value] = {}

    def find(self, tensor: Tensor) -> Value | None:
        """Return what the storage of a plain tensor holds, where that is known."""
        value = self.values.get(key_of(tensor))
        return value if value is not None and value.holds(tensor) else None

    def value(self, tensor: Tensor) -> Value:
        """Return what the storage of a tensor holds now; not made here where it was not known."""
        value = self.find(tensor)
        if value is None:
            value = self.values[key_of(tensor)] = Value(tensor, made=False)
        return value

    def is_weight(self, tensor: Tensor) -> bool:
        """Whether it is a parameter, a buffer, a view of one, or computed from such alone."""
        if type(tensor) is nn.Parameter:
            return True
        base = tensor._base
        if base is None:
            base = tensor
        elif type(base) is nn.Parameter:
            return True
        if not is_plain(tensor):
            return base.is_leaf and base.requires_grad
        where = key_of(tensor)
        if where in self.weights:
            return True
        value = self.values.get(where)
        if value is not None and value.made and value.holds(tensor):
            return value.weight
        return where not in self.inputs and base.is_leaf and base.requires_grad

    def all_weights(self, args: Iterable[Any]) -> bool:
        """Whether a function computes from weights, and scalars: a norm, a mean."""
        found = False
        for part in args:
            if isinstance(part, Tensor) and part.numel() != 1:
                if not self.is_weight(part):
                    return False
                found = True
        return found

    def any_weight(self, args: list[Any]) -> bool:
        """Whether a function takes a weight."""
        for part in args:
            if type(part) is nn.Parameter:
                return True
        return any(isinstance(part, Tensor) and self.is_weight(part) for part in args)

    def is_lent(self, part: Tensor) -> bool:
        """Whether it is a parameter that is none of the model's own: FSDP2 gathers it for the
        module that it is of, and frees it when that has run."""
        own = type(part) is not nn.Parameter or not is_strided(part)
        return not own and key_of(part) not in self.weights
