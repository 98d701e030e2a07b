"""Work on some rows or columns at a time, so that what is between stays small."""

from collections.abc import Callable
from typing import TypeVar, cast

from torch import Tensor


def slices(count: int, step: int) -> list[slice]:
    """The slices of `step` that `count` divides into, the last one as short as it is."""
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


Parts = TypeVar("Parts", bound=tuple[Tensor, ...])


def in_chunks(make: Callable[[slice], Parts], count: int, step: int) -> Parts:
    """The parts that `make` gives for slices of `step` of `count`, joined along their first
    dimension, of which every one of the `count` has as much as any other."""
    first = make(slice(0, step))
    if step >= count:
        return first
    each = [len(part) // step for part in first]
    sizes = zip(first, each, strict=True)
    whole = tuple(part.new_empty(count * n, *part.shape[1:]) for part, n in sizes)
    for start in range(0, count, step):
        made = make(slice(start, start + step)) if start else first
        for part, some, n in zip(whole, made, each, strict=True):
            part[start * n : (start + step) * n] = some
    return cast(Parts, whole)
