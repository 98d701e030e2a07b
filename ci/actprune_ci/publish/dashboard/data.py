"""What the graphs show, out of a history: plain values, ready for JSON."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from math import isfinite
from statistics import fmean, pstdev
from typing import Any

import numpy as np

from actprune_ci.history.series import HistoryFigure
from actprune_ci.publish.dashboard.board import Board

COMMITS = 400
"""The newest commits that are drawn; changes are sought over all."""
Group = dict[str, Any]
GROUP = ("machine", "metric", "unit", "title", "series")


def figures(board: Board) -> tuple[list[Group], dict[int, int]]:
    """Every figure that was measured lately, a line per environment: what figures.html draws.

    And which of them has the figure of a column of the history.
    """
    values = board.history.values[-COMMITS:]
    groups: dict[tuple[str, ...], Group] = {}
    places: dict[int, tuple[str, ...]] = {}
    for column, figure in enumerate(board.history.figures):
        series = values[:, column]
        if not np.isfinite(series).any():
            continue
        key = (figure.machine, figure.metric, figure.unit, figure.name)
        group = groups.setdefault(key, dict(zip(GROUP, (*key, {}), strict=True)) | {"changes": []})
        group["series"][_line(figure)] = [_short(value) for value in series.tolist()]
        places[column] = key
    first = max(0, len(board.history.commits) - COMMITS)
    for found in board.findings:
        if found.column in places and found.change.last >= first:
            change = found.change
            rows = [max(0, change.first - first), change.last - first]
            said = [*rows, found.threshold, found.regression and found.lasting]
            groups[places[found.column]]["changes"].append(said)
    order = sorted(groups)
    numbers = {key: number for number, key in enumerate(order)}
    return [groups[key] for key in order], {c: numbers[key] for c, key in places.items()}


def _line(figure: HistoryFigure) -> str:
    """What tells the lines of one figure apart."""
    version = f"version {figure.version[:8]}" if figure.version else ""
    since = f"since {figure.since[:10]}" if figure.since else ""
    return ", ".join(filter(None, (figure.environment, version, since)))


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
