"""What autograd holds between forward and backward."""

import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from actprune.strategies.base import replacements
from actprune.strategies.saving import Saving


class _Held:
    """One saved tensor, alive for as long as the graph holds it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Made(TorchDispatchMode):
    """Which storages are made while it lasts."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                held = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self.storages[_key(tensor)] = held, storage.nbytes()
        return out


def saved_bytes(
    fn: Callable[..., Any],
    *args: Any,
    weights: Iterable[Tensor] = (),
    hidden: bool = False,
    **kwargs: Any,
) -> int:
    """Return the bytes that autograd holds after a call: each storage once, weights excluded.

    Weights are nn.Parameters (of `fn`, where it is a module or a method of one, of modules among
    its arguments, and any other that autograd holds) and whatever is passed as `weights`. Index
    arrays count, and so does an argument of `fn` that autograd keeps. Works on fake tensors too.

    Args:
        fn: what is called, as `fn(*args, **kwargs)`: a model, a loss.
        args: its arguments.
        weights: tensors that are not counted either.
        hidden: count too what is made in `fn` and lives on beside its output though autograd was
            not given it, as what a selective torch.utils.checkpoint caches; not for a compiled
            `fn`, whose tensors only autograd sees.
        kwargs: its keyword arguments.

    Returns:
        Bytes.

    Example:
        >>> actprune.saved_bytes(nn.Linear(10, 5), torch.zeros(3, 10))
        120
    """
    owner = fn if isinstance(fn, nn.Module) else getattr(fn, "__self__", None)
    modules = (part for part in (owner, *args, *kwargs.values()) if isinstance(part, nn.Module))
    own = [parameter for module in modules for parameter in module.parameters()]
    excluded = {_key(tensor) for tensor in (*own, *weights)}
    made = _Made()
    if isinstance(owner, nn.Module):  # rules with @ keep stores that autograd is not given
        hidden = hidden or any(isinstance(one, Saving) for one in replacements(owner))
    with made if hidden else nullcontext():
        found, output = saved_tensors(fn, *args, **kwargs)
    sizes: dict[int, int] = {}
    for tensor in found:
        if isinstance(tensor, nn.Parameter) or isinstance(tensor._base, nn.Parameter):
            excluded.add(_key(tensor))
        sizes[_key(tensor)] = tensor.untyped_storage().nbytes()
    returned = {_key(tensor) for tensor in tree_iter(output) if isinstance(tensor, Tensor)}
    for key, (held, size) in made.storages.items():
        if key not in returned and not held.expired():  # type: ignore[no-untyped-call]
            sizes[key] = size
    return sum(size for key, size in sizes.items() if key not in excluded)


def saved_tensors(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[list[Tensor], Any]:
    """Every tensor that autograd holds after a call, parameters included, and the call's output."""
    held: weakref.WeakSet[_Held] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Held:
        keeper = _Held(tensor)
        held.add(keeper)
        return keeper

    with saved_tensors_hooks(pack, lambda keeper: keeper.tensor):
        output = fn(*args, **kwargs)
    return [keeper.tensor for keeper in held], output


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
