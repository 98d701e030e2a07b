"""The series of a store: its figures over the commits of a branch."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from actprune_ci.history.creep import Series
from actprune_ci.judge.policy import Policy, Terms
from actprune_ci.model.metrics import Metric
from actprune_ci.model.reading import compiled
from actprune_ci.model.runs import Key
from actprune_ci.store.query import over
from actprune_common.errors import InputError
from actprune_common.git import git

METRIC = TypeAdapter(Metric)

_PLACES = """
CREATE OR REPLACE TEMP TABLE place AS
  SELECT unnest($commits::VARCHAR[]) AS "commit", generate_subscripts($commits, 1) - 1 AS position
"""
_NAMES = 'SELECT DISTINCT name FROM measurements JOIN place USING ("commit")'
_WANTED = """
CREATE OR REPLACE TEMP TABLE wanted AS SELECT unnest($names::VARCHAR[]) AS name
"""
_FIGURES = """
CREATE OR REPLACE TEMP TABLE figure AS
  SELECT row_number() OVER (ORDER BY machine, env_name, name, metric, unit, version) - 1 AS id, *
  FROM (
    SELECT machine, env_name, name, metric, unit, version, any_value(benchmark) AS benchmark,
      any_value(params) AS params, any_value(meaning) AS meaning
    FROM measurements JOIN place USING ("commit")
    WHERE NOT dirty AND value IS NOT NULL AND ($all OR name IN (SELECT name FROM wanted))
    GROUP BY machine, env_name, name, metric, unit, version)
"""
_POINTS = """
SELECT id, position, value
FROM measurements JOIN place USING ("commit")
  JOIN figure USING (machine, env_name, name, metric, unit, version)
WHERE NOT dirty AND value IS NOT NULL
"""  # numbers alone: the texts of ten million points would fill the memory


class NoDataError(InputError):
    """The store holds nothing of what was asked for."""


@dataclass(frozen=True)
class HistoryFigure:
    """What one column of a history holds: one figure on one machine in one environment."""

    machine: str
    environment: str
    """As its tool names it: asv's environment, or the tool and its Python."""
    name: str
    """benchmark(name=value, ...)"""
    metric: str
    unit: str
    version: str
    """Of the benchmark's code: another version is another figure."""
    benchmark: str
    params: Mapping[str, str]
    declared: Metric | None = None
    """What its file says that the metric means."""
    since: str = ""
    """The commit at which its level begins anew, as somebody decided."""

    @property
    def key(self) -> Key:
        """The figure, wherever it is measured."""
        return Key(self.benchmark, tuple(self.params.items()), self.metric, self.unit, self.version)

    @property
    def series(self) -> tuple[str, ...]:
        """What the versions of one figure have in common."""
        return self.machine, self.environment, self.name, self.metric, self.unit

    def terms(self, policy: Policy) -> Terms:
        """How a policy judges the figure."""
        declared = {self.metric: self.declared} if self.declared else {}
        return policy.terms(self.key, declared)


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


def branch_commits(repo: Path, branch: str) -> list[str]:
    """The commits of a branch by its first parents, oldest first.

    Raises InputError where git or the branch is missing.
    """
    words = ("rev-list", "--first-parent", "--reverse", "--end-of-options", branch, "--")
    return git(repo, *words, named=f"{repo}: branch {branch}: fatal").split()


def load(store: str | Path, commits: Collection[str], benchmarks: str = "") -> History:
    """The medians of a store's figures at `commits` (oldest first), several runs being one.

    `benchmarks` is a regular expression, found anywhere in `benchmark(name=value, ...)`. Runs of a
    changed tree are left out. Raises InputError as actprune_ci.store.query.sql does, and
    NoDataError where nothing fits.
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
    made = tuple(
        replace(
            HistoryFigure(*row[:-1]), declared=METRIC.validate_json(row[-1]) if row[-1] else None
        )
        for row in figures
    )
    return History(tuple(listed[i] for i in measured), made, matrix, tuple(skipped.values()))


def _points(
    commits: list[str], pattern: str, connection: Any
) -> tuple[list[Any], Mapping[str, Any]]:
    expression = compiled(pattern)
    connection.execute(_PLACES, {"commits": commits})
    found = connection.execute(_NAMES).fetchall() if pattern else []
    wanted = [name for (name,) in found if expression.search(name)]
    connection.execute(_WANTED, {"names": wanted})
    connection.execute(_FIGURES, {"all": not pattern})
    figures = connection.execute(
        "SELECT machine, env_name, name, metric, unit, version, benchmark, params, meaning"
        " FROM figure ORDER BY id"
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
