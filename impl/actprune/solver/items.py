"""What can be done with each tensor that a backward pass needs: the items that the solver takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Sizes = NDArray[np.int64]
Errors = NDArray[np.float64]

LEVELS = (0.0, 0.02, 0.15, 1.0)
"""Relative errors up to which a tensor counts as exact, fine, coarse and rough."""


@dataclass(frozen=True)
class Option:
    """One way to hold a tensor between the forward and the backward pass.

    Args:
        name: As a plan says it: "keep", "codes:bits=4", "offload".
        nbytes: What is held.
        seconds: What writing it and reading it again takes.
        level: The place in LEVELS of the error of what is read.
        error: What the error of the backward pass's own reading adds to ‖ĝ - g‖² / ‖g‖².
    """

    name: str
    nbytes: int
    seconds: float = 0.0
    level: int = 0
    error: float = 0.0


@dataclass(frozen=True)
class Again:
    """How a tensor is computed again in the backward pass.

    Args:
        inputs: Places among the items of what it is computed from; each must be there, held or
            computed again, with an error of this one's level or less.
        seconds: What that takes.
        errors: By level: what the error that the inputs carry on adds, as in Option.error.
    """

    inputs: tuple[int, ...]
    seconds: float
    errors: tuple[float, ...] = (0.0,) * len(LEVELS)


@dataclass(frozen=True)
class Item:
    """A tensor of the forward pass.

    Args:
        name: Of the tensor.
        needed: Whether the backward pass reads it; others serve to compute these again.
        options: How it can be held.
        again: How it is computed again, where it can be.
    """

    name: str
    needed: bool
    options: tuple[Option, ...]
    again: Again | None = None


@dataclass(frozen=True)
class Cut:
    """A limit on what is alive at one moment of the backward pass.

    Args:
        weights: By the place of an item and that of an option, or AGAIN: the bytes that count. Of
            an item, an option that holds more counts no less: what another surpasses is not tried.
        most: What they sum up to at most, but for a rounding of a millionth.
    """

    weights: Mapping[tuple[int, int], float]
    most: float


@dataclass(frozen=True)
class Choice:
    """What a solver chose.

    Args:
        options: By item: the place of an option, AGAIN, or None where it is not needed.
        levels: By item: the level of the error with which it is there; 0 where it is not.
        nbytes, seconds, error: Sums over the items.
        bound: No choice has less of what was minimised.
        gap: How far above the bound this one is, as a share of itself; 0 where it is the best.
    """

    options: tuple[int | None, ...]
    levels: tuple[int, ...]
    nbytes: int
    seconds: float
    error: float
    bound: float
    gap: float


AGAIN = -1


def alternatives(nbytes: Sizes, errors: Errors) -> list[Item]:
    """Return items that are all needed and take no time; nbytes, errors: (items, options)."""
    return [
        Item(
            str(row),
            needed=True,
            options=tuple(
                Option(str(place), int(size), error=float(error))
                for place, (size, error) in enumerate(zip(*pair, strict=True))
            ),
        )
        for row, pair in enumerate(zip(nbytes, errors, strict=True))
    ]


def check(items: Sequence[Item], choice: Choice) -> None:
    """Raise ValueError where a choice does not hold what it must: a law that tests call."""
    for item, option, level in zip(items, choice.options, choice.levels, strict=True):
        if option is None:
            if item.needed:
                raise ValueError(f"{item.name}: needed, but not there")
        elif option == AGAIN:
            if item.again is None:
                raise ValueError(f"{item.name}: cannot be computed again")
            for place in item.again.inputs:
                if choice.options[place] is None or choice.levels[place] > level:
                    raise ValueError(f"{item.name}: {items[place].name} is not there for it")
        elif item.options[option].level != level:
            raise ValueError(f"{item.name}: not of its option's level")
