"""The rows and columns of the 0/1 programme whose best solution `solver` looks for."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actprune.solver.items import AGAIN, Again, Choice, Item, Option

Floats = NDArray[np.float64]
Way = tuple[int, int]
"""How an item is there: the place of an option, or AGAIN, and the level of its error."""


@dataclass(frozen=True)
class Row:
    """Columns of which as many are taken as the item of others allows.

    A sum over `taken` less that over `there` is 0 or less.
    """

    taken: list[int]
    there: list[int]


@dataclass(frozen=True)
class Columns:
    """Each way in which each item can be there, and which of them go together.

    Args:
        items: what one is computed from has a smaller place.
        ways: by column.
        of: by item, its columns; one of them is taken, or none where it is not needed.
        costs: by column, each of its "seconds", "nbytes" and "error".
        needs: what is computed again needs its inputs.
    """

    items: Sequence[Item]
    ways: list[Way]
    of: list[range]
    costs: dict[str, Floats]
    needs: list[Row]

    def choice(self, taken: Sequence[int]) -> Choice:
        """What these columns say, each item with its least error and only if it serves."""
        ways: list[int | None] = [None] * len(self.items)
        wanted = set(taken)
        for place, columns in enumerate(self.of):
            ways[place] = next((self.ways[c][0] for c in columns if c in wanted), None)
        serves = [item.needed for item in self.items]
        for place in reversed(range(len(self.items))):
            if not serves[place]:
                ways[place] = None
            elif ways[place] == AGAIN:
                for source in _again(self.items[place]).inputs:
                    serves[source] = True
        levels: list[int] = []
        for item, way in zip(self.items, ways, strict=True):
            if way == AGAIN:
                levels.append(max((levels[i] for i in _again(item).inputs), default=0))
            else:
                levels.append(0 if way is None else item.options[way].level)
        costs = [
            _costs(item, (way, level))
            for item, way, level in zip(self.items, ways, levels, strict=True)
            if way is not None
        ]
        seconds, nbytes, errors = zip(*costs, strict=True) if costs else ((), (), ())
        sums = sum(nbytes), math.fsum(seconds), math.fsum(errors)
        return Choice(tuple(ways), tuple(levels), *sums, bound=0.0, gap=0.0)


def columns_of(items: Sequence[Item]) -> Columns:
    """Return the ways of these items that can be of use.

    Raises:
        ValueError: an item is computed from a later one; is needed, and can be there in no way; or
            costs less than nothing.
    """
    ways: list[Way] = []
    of: list[range] = []
    for place, item in enumerate(items):
        if item.again is not None and max(item.again.inputs, default=-1) >= place:
            raise ValueError(f"{item.name}: expected to be computed from earlier items")
        found = [(o, item.options[o].level) for o in _useful(item.options)]
        if item.again is not None:
            sources = [{ways[c][1] for c in of[j]} for j in item.again.inputs]
            found += [(AGAIN, level) for level in _levels(sources)]
        if item.needed and not found:
            raise ValueError(f"{item.name}: needed, but can be neither held nor computed again")
        of.append(range(len(ways), len(ways) + len(found)))
        ways += found
    rows = [_costs(item, ways[c]) for item, columns in zip(items, of, strict=True) for c in columns]
    table = np.array(rows, np.float64).reshape(-1, 3)
    if not (table >= 0).all():
        raise ValueError("items: expected seconds, bytes and errors of 0 or more")
    costs = {"seconds": table[:, 0], "nbytes": table[:, 1], "error": table[:, 2]}
    return Columns(items, ways, of, costs, list(_needs(items, ways, of)))


def _useful(options: Sequence[Option]) -> list[int]:
    """The places of those to which no other is equal or better in all."""
    keys = [(o.nbytes, o.seconds, o.level, o.error) for o in options]
    return [
        place
        for place, key in enumerate(keys)
        if not any(
            all(a <= b for a, b in zip(other, key, strict=True)) and (other != key or i < place)
            for i, other in enumerate(keys)
            if i != place
        )
    ]


def _levels(sources: Sequence[set[int]]) -> list[int]:
    """The levels at which something can be computed again; by source, those it is there at."""
    if not all(sources):
        return []
    lowest = max((min(levels) for levels in sources), default=0)
    return sorted({lowest}.union(*sources) - set(range(lowest)))


def _costs(item: Item, way: Way) -> tuple[float, int, float]:
    """Seconds, bytes and error of an item that is there in this way."""
    place, level = way
    if place == AGAIN:
        again = _again(item)
        return again.seconds, 0, max(again.errors[: level + 1])
    option = item.options[place]
    return option.seconds, option.nbytes, option.error


def _needs(items: Sequence[Item], ways: Sequence[Way], of: Sequence[range]) -> Iterator[Row]:
    """For each item at each level: computed again at this or less, its inputs are there at it."""
    for item, columns in zip(items, of, strict=True):
        again = [c for c in columns if ways[c][0] == AGAIN]
        for count, column in enumerate(again, 1):
            for source in sorted(set(_again(item).inputs)):
                there = [c for c in of[source] if ways[c][1] <= ways[column][1]]
                if not (items[source].needed and len(there) == len(of[source])):
                    yield Row(again[:count], there)


def _again(item: Item) -> Again:
    assert item.again is not None
    return item.again
