"""What autograd holds between forward and backward."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class _Held:
    """One saved tensor, alive for as long as the graph holds it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def saved_tensors(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Tensor]:
    """Every tensor that autograd holds after `fn(*args, **kwargs)`, parameters included."""
    held: weakref.WeakSet[_Held] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Held:
        keeper = _Held(tensor)
        held.add(keeper)
        return keeper

    with saved_tensors_hooks(pack, lambda keeper: keeper.tensor):
        output = fn(*args, **kwargs)
    found = [keeper.tensor for keeper in held]  # while `output` still holds the graph
    del output
    return found


def saved_bytes(
    fn: Callable[..., Any], *args: Any, weights: Iterable[Tensor] = (), **kwargs: Any
) -> int:
    """Bytes that autograd holds after `fn(*args, **kwargs)`: each storage once, weights excluded.

    Weights are nn.Parameters (of `fn`, where it is a module or a method of one, and any other that
    autograd holds) and whatever is passed as `weights`. Index arrays count, and so does an argument
    of `fn` that autograd keeps. Works on fake tensors too. What is saved inside
    torch.utils.checkpoint is not seen, since it is not held.
    """
    owner = fn if isinstance(fn, nn.Module) else getattr(fn, "__self__", None)
    own = list(owner.parameters()) if isinstance(owner, nn.Module) else []
    excluded = {_key(tensor) for tensor in (*own, *weights)}
    sizes: dict[int, int] = {}
    for tensor in saved_tensors(fn, *args, **kwargs):
        if isinstance(tensor, nn.Parameter) or isinstance(tensor._base, nn.Parameter):
            excluded.add(_key(tensor))
        sizes[_key(tensor)] = tensor.untyped_storage().nbytes()
    return sum(size for key, size in sizes.items() if key not in excluded)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
