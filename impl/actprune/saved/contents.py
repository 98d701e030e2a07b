"""The backward pass: values decoded, or made again by their recipes."""

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor

from actprune.layers.casting import without_autocast
from actprune.saved.stores import Whole
from actprune.saved.values import Given, Recipe, Value, View

RECENT = 2
"""Values that are held for neighbours: what a product of two takes."""


class Contents:
    """The contents of values while a backward pass asks for them."""

    def __init__(self) -> None:
        self._recent: dict[Value, Tensor] = {}
        """The last values that will be asked for again, so that neighbours decode them once."""

    def tensor(self, view: View) -> Tensor:
        """Return a saved tensor."""
        view.value.uses -= 1
        if torch.is_grad_enabled() or torch._C._is_any_autocast_enabled():
            with torch.no_grad(), _without_autocast():
                return view.of(self._flat(view.value)[0])
        return view.of(self._flat(view.value)[0])

    def _flat(self, value: Value) -> tuple[Tensor, bool]:
        """A value's content (n,), and whether nobody else holds it."""
        known = self._recent.get(value) if value.uses > 0 else self._recent.pop(value, None)
        if known is not None:
            return known, False
        if value.store is not None:
            flat, own = value.store.flat(), not isinstance(value.store, Whole)
        else:
            assert value.recipe is not None
            flat, own = self._made(value, value.recipe), True
        if value.uses > 0 and own:
            while len(self._recent) >= RECENT:
                self._recent.pop(next(iter(self._recent)))
            self._recent[value], own = flat, False
        return flat, own

    def _made(self, value: Value, recipe: Recipe) -> Tensor:
        """The content that a recipe gives, in the memory of an argument where that is free."""
        free: list[Tensor] = []
        args = [self._real(part, recipe, free) for part in recipe.args]
        kwargs = {name: self._real(part, recipe, free) for name, part in recipe.kwargs.items()}
        if recipe.operator.in_place:
            return self._in_place(recipe, args, kwargs, free)
        made = _reusing(recipe.operator.name, args, kwargs, value, free)
        if made is None:
            with _autocast(recipe):
                made = recipe.func(*args, **kwargs)
            made = made if recipe.index is None else made[recipe.index]
        if made.stride() != value.stride:  # its arguments lay otherwise
            made = torch.empty_strided(
                value.shape, value.stride, dtype=made.dtype, device=made.device
            ).copy_(made)
        count = made.untyped_storage().nbytes() // made.itemsize
        return made.as_strided((count,), (1,), 0)

    def _real(self, part: Any, recipe: Recipe, free: list[Tensor]) -> Any:
        """An argument of a recipe; what nobody else holds is added to `free`."""
        if isinstance(part, Given):
            return part.now()
        if isinstance(part, View):
            flat, own = self._flat(part.value)
            if own and recipe.parents.count(part.value) == 1:
                free.append(flat)
            return part.of(flat)
        if isinstance(part, list | tuple):
            return type(part)(self._real(each, recipe, free) for each in part)
        return part

    def _in_place(
        self, recipe: Recipe, args: list[Any], kwargs: dict[str, Any], free: list[Tensor]
    ) -> Tensor:
        flat = next((each for each in free if _shares(args[0], each)), None)
        if flat is None:
            target = recipe.args[0]
            flat = self._flat(target.value)[0].clone()
            args[0] = target.of(flat)
        with _autocast(recipe):
            recipe.func(*args, **kwargs)
        return flat


def normalized(
    x: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """Batch normalization by known statistics, in the memory of x (batch, channels, ...)."""
    scale = invstd if weight is None else invstd * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    across = (-1, *[1] * (x.dim() - 2))
    return x.mul_(scale.view(across)).add_(shift.view(across))


_UNARY: dict[str, Callable[..., Tensor]] = {
    "gelu": torch.ops.aten.gelu_,
    "silu": torch.ops.aten.silu_,
    "relu": torch.relu_,
    "tanh": torch.tanh_,
    "sigmoid": torch.sigmoid_,
}
_BINARY: dict[str, Callable[..., Tensor]] = {
    "mul": torch.mul,
    "rmul": torch.mul,
    "add": torch.add,
    "radd": torch.add,
}


def _reusing(
    name: str, args: list[Any], kwargs: dict[str, Any], value: Value, free: list[Tensor]
) -> Tensor | None:
    """The result in the memory of a free argument, where the function can do that."""

    def fits(part: Any) -> bool:
        return (
            isinstance(part, Tensor)
            and part.shape == value.shape
            and part.stride() == value.stride
            and any(_shares(part, flat) for flat in free)
        )

    made: Tensor | None = None
    if name == "normalized":
        made = normalized(args[0] if fits(args[0]) else args[0].clone(), *args[1:])
    elif name in _UNARY and len(args) == 1 and fits(args[0]):
        made = _UNARY[name](*args, **{key: v for key, v in kwargs.items() if key != "inplace"})
    elif name in _BINARY and len(args) == 2 and not kwargs:
        for part, other in (args, args[::-1]):
            kind = getattr(other, "dtype", type(other))
            if fits(part) and part.is_floating_point() and kind in (part.dtype, int, float):
                return _BINARY[name](part, other, out=part)
    return made


def _shares(part: Tensor, flat: Tensor) -> bool:
    return bool(part.untyped_storage()._cdata == flat.untyped_storage()._cdata)


def _without_autocast() -> Any:
    """Autocast around the backward pass is none of the forward pass's."""
    stack = ExitStack()
    for device in ("cpu", "cuda"):
        stack.enter_context(without_autocast(torch.device(device)))
    return stack


def _autocast(recipe: Recipe) -> Any:
    if recipe.autocast is None:
        return nullcontext()
    device, dtype = recipe.autocast
    return torch.autocast(device, dtype, cache_enabled=False)
