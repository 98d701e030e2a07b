"""What the figures of one machine say together: its states, and moves that are not the code's.

A series of one figure alone cannot tell a machine that was slow for its newest twenty commits from
code that is. Two things that the other figures of the machine know help:

- how long its states last: a change is confirmed only where levels on both sides have lasted longer
  than the excursions of about its size that any of the figures made;
- moves in common: where nearly all figures, of unrelated benchmarks, move in one direction by about
  the same factor, the machine did, or what is installed on it.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import log

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from actprune_ci.history.changes import SHORTEST, Change, noisy
from actprune_ci.history.creep import Series
from actprune_ci.history.states import BEYOND, Excursion, long_enough

COMMON = 0.8
"""Of a machine's noisy figures: so many move alike where the machine moves."""
ALIKE = 2.0
"""Times: factors (their logarithms) differ by no more in a common move."""
VOTED = 0.2
"""Of its figures must show a change of their own where a common move is looked for."""
TALLER = 2.0
"""Times a step: what another figure was away by more is no state that explains it."""
NEAR = 10
"""Rows on either side that tell by how much each figure moved."""
LEAST_FIGURES = 10
LEAST_BENCHMARKS = 3
"""A common move needs so many: fewer may all use the code that changed."""


@dataclass(frozen=True)
class Move:
    """A move of nearly all noisy figures of a machine at once, which no change of code explains."""

    group: Hashable
    first: int
    """The last row before it."""
    last: int
    """The first row after it."""
    figures: int
    """That moved alike, out of `of` that were measured on both sides."""
    of: int
    effect: float
    """The median of their relative changes."""


def settled(
    found: Sequence[Sequence[Change]],
    matrix: Series,
    exact: Sequence[bool | None] | None = None,
    groups: Sequence[Hashable] | None = None,
    benchmarks: Sequence[Hashable] | None = None,
) -> tuple[list[list[Change]], list[Move]]:
    """The changes of all columns, their standing revised by the other figures of their machine.

    Args:
        found: what `changes` found in each column of `matrix`.
        matrix: commits x figures, as `changes` takes it.
        exact: as `changes` takes it; exact figures take no part.
        groups: of which machine (and environment, and metric) each column is; None: all of one.
        benchmarks: of which benchmark each column is, its parameters aside; None: each of its own.

    Returns:
        The changes of each column, and the moves in common, by which some of them are "shared".
    """
    rules = exact if exact is not None else [None] * matrix.shape[1]
    names = benchmarks if benchmarks is not None else range(matrix.shape[1])
    members = defaultdict[Hashable, list[int]](list)
    for i, group in enumerate(groups if groups is not None else [None] * matrix.shape[1]):
        if noisy(matrix[:, i], rules[i]):
            members[group].append(i)
    made, moves = list(map(list, found)), list[Move]()
    for group, columns in members.items():
        for i, changes in zip(columns, _by_states([made[i] for i in columns]), strict=True):
            made[i] = changes
        these = [made[i] for i in columns]
        for move, who in _moves(group, matrix[:, columns], these, [names[i] for i in columns]):
            moves.append(move)
            for j in who:
                made[columns[j]] = [_shared(change, move) for change in made[columns[j]]]
    return made, moves


def _height(change: Change) -> float:
    """The logarithm of a change's factor; nothing where a level is not above zero."""
    return log(change.after / change.before) if min(change.before, change.after) > 0 else 0.0


def _by_states(found: Sequence[Sequence[Change]]) -> list[list[Change]]:
    """The changes of a machine's figures, once the excursions of them all are known."""
    known = [
        (i, Excursion(change.held, abs(_height(change))))
        for i, changes in enumerate(found)
        for change in changes
        if change.standing == "passing" and change.held
    ]

    def revised(change: Change, newest: bool) -> Change:
        step = abs(_height(change))
        if change.standing != "confirmed" or not step:
            return change
        # of other figures only states of about this height: theirs may be changes of code, undone
        like = [
            (owner, each) for owner, each in known if step / BEYOND <= each.height <= step * TALLER
        ]
        excursions = [each for _, each in like]
        share = len({owner for owner, _ in like}) / len(found)
        if not long_enough(change.stood, step, excursions, share):
            return replace(change, standing="passing")
        if not long_enough(change.held, step, excursions, share):
            return replace(change, standing="suspected" if newest else "passing")
        return change

    return [[revised(change, change is changes[-1]) for change in changes] for changes in found]


def _moves(
    group: Hashable, matrix: Series, found: Sequence[Sequence[Change]], names: Sequence[Hashable]
) -> Iterator[tuple[Move, list[int]]]:
    """The moves in common of a machine's columns, each with those that took part."""
    votes = np.zeros(len(matrix) + 1, dtype=int)
    for changes in found:
        for change in changes:
            if change.kind == "step":
                votes[change.first + 1 : change.last + 1] += 1
    enough = max(LEAST_FIGURES * VOTED, VOTED * len(found))
    most = np.flatnonzero((votes >= enough) & (votes == maximum_filter1d(votes, 5)))
    for run in np.split(most, np.flatnonzero(np.diff(most) > 1) + 1) if len(most) else ():
        at = int(run[len(run) // 2])
        here, rises = _rises(matrix, at)
        middle = float(np.median(rises)) if len(here) else 0.0
        alike = here[_alike(rises, middle)]
        several = len({names[i] for i in alike}) >= LEAST_BENCHMARKS
        if several and len(alike) >= max(LEAST_FIGURES, COMMON * len(here)):
            move = Move(group, at - 1, at, len(alike), len(here), float(np.expm1(middle)))
            yield move, alike.tolist()


def _rises(matrix: Series, at: int) -> tuple[NDArray[np.int64], Series]:
    """The columns measured on both sides of a row, and the logarithms of their factors there."""
    before, after = matrix[max(0, at - NEAR) : at], matrix[at : at + NEAR]
    clear = (np.isfinite(before).sum(0) >= SHORTEST) & np.isfinite(after).any(0)
    here = np.flatnonzero(clear & ~(before <= 0).any(0) & ~(after <= 0).any(0))
    levels = (np.nanmedian(side[:, here], axis=0) for side in (after, before))
    return here, np.log(np.divide(*levels))


def _alike(rises: Series, middle: float) -> NDArray[np.bool_]:
    ratio = rises / middle if middle else np.zeros_like(rises)
    return (ratio >= 1 / ALIKE) & (ratio <= ALIKE)


def _shared(change: Change, move: Move) -> Change:
    """The change, which is "shared" where it is the figure's part of the move."""
    within = change.first < move.last <= change.last and change.standing != "passing"
    alike = _alike(np.array(_height(change)), float(np.log1p(move.effect)))
    return replace(change, standing="shared") if within and alike else change
