"""What the pages show, out of a store: plain values, ready for JSON."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from operator import itemgetter
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np

from actprune_ci.history.history import HistoryFinding, findings
from actprune_ci.history.series import History, HistoryFigure, load
from actprune_ci.judge.policy import Policy
from actprune_ci.readers.ab import ADDED
from actprune_ci.store.query import sql

COMMITS = 400
"""The newest commits that are drawn; changes are sought over all."""
_MACHINES = """
SELECT machine, strftime(date, '%Y-%m-%d %H:%M') AS date, source, "commit", environment
FROM measurements GROUP BY ALL ORDER BY ALL
"""
_OF_THE_RUN = {"command", "commit_date", *ADDED}
Group = dict[str, Any]
GROUP = ("machine", "metric", "unit", "title", "series")


@dataclass(frozen=True)
class MachineRuns:
    """One machine's runs."""

    name: str
    runs: int
    commit: str
    """The last one measured."""
    date: str
    environment: Mapping[str, str]
    """Of the last run."""
    changes: Sequence[tuple[str, str, str, str]]
    """(date, what, before, after), the newest first."""


@dataclass(frozen=True)
class Board:
    """All that the pages show."""

    branch: str
    history: History
    findings: Sequence[HistoryFinding]
    machines: Sequence[MachineRuns]
    gates: Sequence[Mapping[str, Any]]
    """The reports of the gate, as its JSON."""

    @property
    def lasting(self) -> list[HistoryFinding]:
        """Regressions that still hold."""
        return [found for found in self.findings if found.regression and found.lasting]


def board(
    store: str | Path,
    commits: Sequence[str],
    branch: str,
    gates: Sequence[Mapping[str, Any]],
    benchmarks: str = "",
    policy: Policy | None = None,
) -> Board:
    """Everything of a branch's commits (oldest first). Raises as history.load does."""
    history = load(store, commits, benchmarks)
    return Board(branch, history, findings(history, policy), machines(store), gates)


def machines(store: str | Path) -> list[MachineRuns]:
    """The machines of a store by name, what changed on each from run to run."""
    made = []
    for name, rows in groupby(sql(store, _MACHINES).rows, itemgetter(0)):
        changes, seen, runs = [], dict[str, str](), list(rows)
        for _, date, _, _, environment in runs:
            now = {what: environment[what] for what in environment if what not in _OF_THE_RUN}
            changes += [
                (date, what, seen[what], value)
                for what, value in now.items()
                if seen.get(what, value) != value
            ]
            seen |= now
        _, date, _, commit, _ = runs[-1]
        made.append(MachineRuns(name, len(runs), commit, date, seen, changes[::-1]))
    return made


def over_commits(board: Board) -> list[Group]:
    """The figures that formats have in common, one line per spec: what formats.html draws."""
    values = board.history.values[-COMMITS:]
    groups: dict[tuple[str, ...], Group] = {}
    for column, figure in enumerate(board.history.figures):
        spec = figure.params.get("spec")
        series = values[:, column]
        if spec is None or not np.isfinite(series).any():
            continue
        key = (figure.machine, figure.metric, figure.unit, _title(figure, "spec"))
        group = groups.setdefault(key, dict(zip(GROUP, (*key, {}), strict=True)))
        group["series"][spec] = [_short(value) for value in series.tolist()]
    return [groups[key] for key in sorted(groups)]


def pareto(board: Board) -> list[Group]:
    """Accuracy against saved bytes of each training, seeds averaged, commit by commit."""
    values = board.history.values[-COMMITS:]
    runs: dict[tuple[str, str], dict[str, dict[str, list[int]]]] = {}
    for column, figure in enumerate(board.history.figures):
        spec = figure.params.get("spec")
        if spec is None or figure.metric not in ("accuracy", "saved_ratio"):
            continue
        place = (figure.machine, _title(figure, "spec", "seed"))
        of_spec = runs.setdefault(place, {}).setdefault(spec, defaultdict(list))
        of_spec[figure.metric].append(column)
    made = []
    for (machine, title), specs in sorted(runs.items()):
        points = [
            point for spec, columns in specs.items() for point in _points(spec, columns, values)
        ]
        if points:
            made.append({"machine": machine, "title": title, "points": points})
    return made


def _points(spec: str, columns: Mapping[str, list[int]], values: Any) -> Iterator[Group]:
    for row, measured in enumerate(values):
        accuracy, saved = (
            [float(v) for v in measured[columns[metric]] if isfinite(v)]
            for metric in ("accuracy", "saved_ratio")
        )
        if accuracy and saved:
            yield {
                "spec": spec,
                "row": row,
                "accuracy": _short(fmean(accuracy)),
                "spread": _short(pstdev(accuracy)),
                "seeds": len(accuracy),
                "saved": _short(fmean(saved)),
            }


def _title(figure: HistoryFigure, *without: str) -> str:
    params = ", ".join(f"{k}={v}" for k, v in figure.params.items() if k not in without)
    return f"{figure.benchmark}({params})" if params else figure.benchmark


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if isfinite(value) else None
