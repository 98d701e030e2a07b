"""How often `changes` is wrong on a machine's own series, by shuffling them and planting steps.

A series whose commits are shuffled has no change of code left in it. What is confirmed in it is a
false step. Shuffled are the commits within each window between two moves that the machine's figures
make together, so that the machine's states stay. In blocks, its shorter states stay too; levels
that were confirmed as the code's are taken out before, or their blocks would be states themselves.
The same calm series, with a step planted in its middle, tells the power.
"""

from collections.abc import Hashable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from math import sqrt

import numpy as np
from scipy.stats import t as student

from actprune_ci.history.changes import LOOSELY, Change, changes, noisy
from actprune_ci.history.creep import Series
from actprune_ci.history.machine import Move, settled
from actprune_ci.history.states import FEW

MARGIN, SHORT = 2.5, 180.0
"""By simulation: what a power of 95 % asks for, and what short series ask for besides."""
NEAR = 3
"""Rows: a planted step is found where its range comes as near."""
PARTS = 10
"""Columns are planted a part at a time: what all figures do is the machine's doing."""


@dataclass(frozen=True)
class Rates:
    """What came of the trials of a matrix's noisy series."""

    series: int
    """Times the trials: so many series were shuffled, and planted."""
    false: int
    """Of them had a confirmed step once their commits were shuffled."""
    false_in_blocks: int
    """The same, of blocks of commits."""
    within: int
    """Of the planted ones had a bound below the planted effect."""
    found: int
    """Of those within, where the planted step was confirmed in its place."""

    def __add__(self, other: "Rates") -> "Rates":
        return Rates(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def bound(values: Series) -> float:
    """The smallest relative step in the middle of a series that is found in 95 % of trials.

    The standard error of a difference of two means of n / 2 values, times the threshold that a
    candidate needs and MARGIN + SHORT / n more. Infinite for series too short for two confirmed
    levels, and for figures that are not above zero.
    """
    n = len(values)
    if n < 2 * FEW or not (values > 0).all():
        return float("inf")
    threshold = float(student(max(3, n / 3)).isf(LOOSELY / (2 * n)))
    errors = threshold + MARGIN + SHORT / n
    return float(np.expm1(errors * 2 / sqrt(n) * np.log(values).std()))


def rates(
    matrix: Series,
    exact: Sequence[bool | None] | None = None,
    groups: Sequence[Hashable] | None = None,
    effect: float = 0.05,
    trials: int = 1,
    block: int = 10,
    seed: int = 0,
) -> Rates:
    """The error rates of `changes` and `settled` on the noisy series of a matrix.

    Args:
        matrix: commits x figures, as `changes` takes it.
        exact: as `changes` takes it.
        groups: as `settled` takes them.
        effect: the planted relative step.
        trials: how often each series is shuffled, and planted.
        block: commits of a block.
        seed: of the shuffles.
    """
    rules = exact if exact is not None else [None] * matrix.shape[1]
    kept = [i for i in range(matrix.shape[1]) if noisy(matrix[:, i], rules[i])]
    names = [groups[i] if groups is not None else None for i in kept]
    made = Rates(0, 0, 0, 0, 0)
    if not kept:
        return made
    given = matrix[:, kept]
    found, moves = _analysed(given, names)
    windows = [
        [0, *sorted({move.last for move in moves if move.group == name}), len(given)]
        for name in names
    ]
    calm = calmed(given, found)
    rng = np.random.default_rng(seed)
    for _ in range(trials):
        mixed, _ = _analysed(shuffled(given, windows, rng), names)
        blocks, _ = _analysed(shuffled(calm, windows, rng, block), names)
        within, hits = _planted(shuffled(calm, windows, rng), names, effect)
        false, in_blocks = (sum(map(_confirmed, columns)) for columns in (mixed, blocks))
        made += Rates(len(kept), false, in_blocks, within, hits)
    return made


def shuffled(
    matrix: Series, windows: Sequence[Sequence[int]], rng: np.random.Generator, block: int = 1
) -> Series:
    """The matrix with the values of each column in another order, within each of its windows.

    Blocks of neighbours stay together; where the first one begins is drawn too.
    """
    made = matrix.copy()
    for i, edges in enumerate(windows):
        rows = np.flatnonzero(np.isfinite(matrix[:, i]))
        for part in np.split(rows, np.searchsorted(rows, edges[1:-1])):
            cuts = np.arange(rng.integers(1, block + 1), max(1, len(part)), block)
            blocks = np.split(part, cuts)
            made[part, i] = matrix[
                np.concatenate([blocks[j] for j in rng.permutation(len(blocks))]), i
            ]
    return made


def calmed(matrix: Series, found: Sequence[Sequence[Change]]) -> Series:
    """The matrix without confirmed and shared changes: each level is brought to the newest."""
    made = matrix.copy()
    for i, told in enumerate(found):
        edges = [c.last for c in told if c.standing in ("confirmed", "shared")]
        levels = [np.nanmedian(part) for part in np.split(matrix[:, i], edges)]
        for level, part in zip(levels, np.split(made[:, i], edges), strict=True):
            if levels[-1] * level > 0:
                part *= levels[-1] / level
            else:
                part += levels[-1] - level
    return made


def _analysed(matrix: Series, groups: Sequence[Hashable]) -> tuple[list[list[Change]], list[Move]]:
    exact = [False] * matrix.shape[1]
    return settled(changes(matrix, exact), matrix, exact, groups)


def _planted(matrix: Series, groups: Sequence[Hashable], effect: float) -> tuple[int, int]:
    """Of how many columns the bound is below the effect, and in how many of them it is found."""
    measured = [np.flatnonzero(np.isfinite(column)) for column in matrix.T]
    middles = [int(rows[len(rows) // 2]) for rows in measured]
    planted = matrix.copy()
    for i, at in enumerate(middles):
        planted[at:, i] *= 1 + effect
    exact = [False] * matrix.shape[1]
    calm, after = changes(matrix, exact), changes(planted, exact)
    within = [bound(matrix[rows, i]) < effect for i, rows in enumerate(measured)]
    hits = 0
    for part in range(PARTS):
        here = range(part, matrix.shape[1], PARTS)
        found, now = list(calm), matrix.copy()
        for i in here:
            found[i], now[:, i] = after[i], planted[:, i]
        told, _ = settled(found, now, exact, groups)
        hits += sum(within[i] and any(map(partial(_is_at, middles[i]), told[i])) for i in here)
    return sum(within), hits


def _is_at(row: int, change: Change) -> bool:
    near = change.first - NEAR <= row <= change.last + NEAR
    return near and change.standing == "confirmed" and change.after > change.before


def _confirmed(told: Sequence[Change]) -> bool:
    return any(change.standing == "confirmed" for change in told)
