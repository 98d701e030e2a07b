"""The history of a branch: its figures over commits, and where they changed."""

import multiprocessing
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprune_ci.history.changes import Change, changes
from actprune_ci.history.creep import Series
from actprune_ci.judge.policy import HIGHER_IS_BETTER
from actprune_ci.store.query import over
from actprune_common.errors import InputError
from actprune_common.git import git

MEASURED = ("time", "peak_memory", "measured_peak", "ratio_to_dense", "accuracy", "accuracy_delta")
"""Metrics that differ from run to run: they change only beyond their noise."""
LARGE = 2_000_000
"""Values of a matrix from which on all cores share it."""

_PLACES = """
CREATE OR REPLACE TEMP TABLE place AS
  SELECT unnest($commits::VARCHAR[]) AS "commit", generate_subscripts($commits, 1) - 1 AS position
"""
_FIGURES = """
CREATE OR REPLACE TEMP TABLE figure AS
  SELECT row_number() OVER (ORDER BY machine, name, metric, unit) - 1 AS id, *
  FROM (
    SELECT machine, name, metric, unit, any_value(benchmark) AS benchmark,
      any_value(params) AS params
    FROM measurements JOIN place USING ("commit")
    WHERE NOT dirty AND value IS NOT NULL AND name GLOB $pattern
    GROUP BY machine, name, metric, unit)
"""
_POINTS = """
SELECT id, position, value
FROM measurements JOIN place USING ("commit") JOIN figure USING (machine, name, metric, unit)
WHERE NOT dirty AND value IS NOT NULL
"""  # numbers alone: the texts of ten million points would fill the memory


class NoDataError(InputError):
    """The store holds nothing of what was asked for."""


@dataclass(frozen=True)
class HistoryFigure:
    """What one column of a history holds, on one machine."""

    machine: str
    name: str
    """benchmark(name=value, ...)"""
    metric: str
    unit: str
    benchmark: str
    params: Mapping[str, str]

    @property
    def exact(self) -> bool | None:
        """False where the figure is known to be noisy; None: its values tell."""
        return False if self.metric in MEASURED or self.unit == "s" else None


@dataclass(frozen=True)
class History:
    """Medians of a branch: one row per commit that was measured, one column per figure."""

    commits: tuple[str, ...]
    """Full hashes, oldest first."""
    figures: tuple[HistoryFigure, ...]
    values: Series
    """(commits, figures), in each figure's unit; NaN where it was not measured."""
    skipped: tuple[str, ...] = ()
    """Why files of the store were left out."""


@dataclass(frozen=True)
class HistoryFinding:
    """One change of one figure, with the commits that it lies between."""

    figure: HistoryFigure
    change: Change
    good: str
    """The last commit that surely has the old level."""
    bad: str
    """The first commit that surely has the new one."""
    regression: bool
    lasting: bool
    """Whether the newest level is still nearer to the new one than to the old one, or beyond it."""

    @property
    def range(self) -> str:
        """The commits among which the change is, as git rev-list takes them."""
        return f"{self.good}..{self.bad}"

    @property
    def verdict(self) -> str:
        """What the change means, in a word or two."""
        if not self.regression:
            return "better"
        return "worse" if self.lasting else "was worse for a time"

    @property
    def size(self) -> str:
        """How large the change is, for people: relative where both levels are above zero."""
        change = self.change
        if min(change.before, change.after) > 0:
            return f"{change.effect:+.4%}" if change.kind == "exact" else f"{change.effect:+.2%}"
        return f"{change.effect:+.6g}"

    @property
    def document(self) -> dict[str, Any]:
        """For JSON."""
        made = asdict(self)
        flat = {**made.pop("figure"), **made.pop("change"), **made}
        return {**flat, "effect": self.change.effect, "range": self.range}


def branch_commits(repo: Path, branch: str) -> list[str]:
    """The commits of a branch by its first parents, oldest first.

    Raises InputError where git or the branch is missing.
    """
    words = ("rev-list", "--first-parent", "--reverse", "--end-of-options", branch, "--")
    return git(repo, *words, named=f"{repo}: branch {branch}: fatal").split()


def load(store: str | Path, commits: Collection[str], benchmarks: str = "*") -> History:
    """The medians of a store's figures at `commits` (oldest first), several runs being one.

    `benchmarks` is a glob over `benchmark(name=value, ...)`. Runs of a changed tree are left out.
    Raises InputError as actprune_ci.store.query.sql does, and NoDataError where nothing fits.
    """
    listed = list(commits)
    (figures, points), skipped = over(store, partial(_points, listed, benchmarks))
    if not figures:
        raise NoDataError(
            f"{store}: no figure of {benchmarks!r} at any of the branch's {len(listed)} commits"
        )
    measured, rows = np.unique(points["position"], return_inverse=True)
    shape = (len(measured), len(figures))
    matrix = medians(rows * shape[1] + points["id"], points["value"], shape)
    made = tuple(HistoryFigure(*figure) for figure in figures)
    return History(tuple(listed[i] for i in measured), made, matrix, tuple(skipped.values()))


def _points(
    commits: list[str], pattern: str, connection: Any
) -> tuple[list[Any], Mapping[str, Any]]:
    connection.execute(_PLACES, {"commits": commits})
    connection.execute(_FIGURES, {"pattern": pattern})
    figures = connection.execute(
        "SELECT machine, name, metric, unit, benchmark, params FROM figure ORDER BY id"
    ).fetchall()
    return figures, connection.execute(_POINTS).fetchnumpy()


def medians(places: NDArray[np.int64], values: Series, shape: tuple[int, int]) -> Series:
    """A matrix with the median of its values at each flat place; NaN where there is none."""
    order = np.lexsort((values, places))
    at, first, count = np.unique(places[order], return_index=True, return_counts=True)
    low, high = order[first + (count - 1) // 2], order[first + count // 2]
    matrix = np.full(shape, np.nan)
    matrix.flat[at] = (values[low] + values[high]) / 2
    return matrix


def findings(history: History, smallest: float = 0.01) -> list[HistoryFinding]:
    """All changes of a history, those that last first, then the largest first.

    `smallest` is the least relative effect of a noisy figure that is told.
    """
    found = []
    columns = _changes(history.values, [figure.exact for figure in history.figures], smallest)
    for figure, column in zip(history.figures, columns, strict=True):
        for change in column:
            good, bad = history.commits[change.first], history.commits[change.last]
            worse = (change.after > change.before) != (figure.metric in HIGHER_IS_BETTER)
            middle, newest = (change.before + change.after) / 2, column[-1].after
            lasting = (newest > middle) == (change.after > change.before)
            found.append(HistoryFinding(figure, change, good, bad, worse, lasting))
    return sorted(found, key=lambda f: (not (f.regression and f.lasting), -abs(f.change.effect)))


def _changes(matrix: Series, exact: Sequence[bool | None], smallest: float) -> list[list[Change]]:
    """`changes`, large matrices on all cores."""
    workers = os.cpu_count() or 1
    if matrix.size < LARGE or workers == 1:
        return changes(matrix, exact, smallest)
    parts = np.array_split(np.arange(matrix.shape[1]), 4 * workers)
    context = multiprocessing.get_context("spawn")  # DuckDB's threads do not survive a fork
    with ProcessPoolExecutor(workers, context) as pool:
        columns, rules = [matrix[:, part] for part in parts], [[exact[i] for i in p] for p in parts]
        return list(chain(*pool.map(changes, columns, rules, repeat(smallest))))
