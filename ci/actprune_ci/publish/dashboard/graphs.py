"""A figure over commits as an SVG: its values, the commits of its change, and the threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from actprune_ci.history.finding import HistoryFinding
from actprune_ci.history.series import History
from actprune_ci.publish.reports.formatting import number

BEFORE = 60
"""Measurements before a change that its graph begins with."""
MOST = 160
"""Points of a graph: more are medians of neighbours."""
SMALL, LARGE = (220, 34), (960, 240)
MARGIN = {SMALL: (2, 2, 2, 2), LARGE: (104, 14, 14, 22)}
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Graph:
    """What a template draws, in pixels."""

    width: int
    height: int
    points: str
    dots: Sequence[tuple[float, float]]
    threshold: float | None
    """Its height."""
    band: tuple[float, float]
    """Where the change lies, from and how wide."""
    ticks: Sequence[tuple[float, str]]
    """Heights with their figures."""
    ends: tuple[str, str]
    """The first and the last commit."""
    left: float
    right: float
    label: str
    """What it shows, for those who do not see it."""


def graph(history: History, found: HistoryFinding, size: tuple[int, int]) -> Graph:
    """A finding's figure from some time before its change to the newest commit."""
    column = history.values[:, found.column]
    measured = np.flatnonzero(np.isfinite(column))
    begin = int(np.searchsorted(measured, found.change.first, "right")) - BEFORE
    rows = measured[max(0, begin) :].tolist()
    step = -(-len(rows) // MOST)
    parts = [rows[i : i + step] for i in range(0, len(rows), step)]
    values = [median(float(column[row]) for row in part) for part in parts]
    limit = found.threshold
    left, top, right, bottom = MARGIN[size]
    low, high = min(*values, limit), max(*values, limit)
    scale = (size[1] - top - bottom) / ((high - low) or 1.0)
    across = (size[0] - left - right) / max(len(parts) - 1, 1)

    def y(value: float) -> float:
        return round(size[1] - bottom - (value - low) * scale, 1)

    places = [(round(left + i * across, 1), y(value)) for i, value in enumerate(values)]
    at = [_part(parts, row) for row in (found.change.first, found.change.last)]
    start, end = (left + each * across for each in at)
    unit, commits = found.figure.unit, history.commits
    ticks = [(y(v), number(v, unit)) for v in (found.change.before, found.change.after)]
    return Graph(
        *size,
        " ".join(f"{x},{height}" for x, height in places),
        places if size == LARGE and len(places) <= MOST else (),
        y(limit),
        (round(start, 1), round(max(end - start, 2.0), 1)),
        _apart(ticks),
        (commits[rows[0]][:10], commits[rows[-1]][:10]),
        left,
        size[0] - right,
        f"{found.figure.name}, {found.figure.metric}, {len(rows)} measurements;"
        f" {number(found.change.before, unit)}, then {number(found.change.after, unit)};"
        f" counts from {number(limit, unit)} on",
    )


def _part(parts: Sequence[Sequence[int]], row: int) -> int:
    """The point that a row belongs to."""
    return next((i for i, part in enumerate(parts) if part[-1] >= row), len(parts) - 1)


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Labels that do not lie upon each other."""
    (first, one), (second, other) = ticks
    if abs(first - second) >= 14:
        return list(ticks)
    shift = 7 if first > second else -7
    return [(first + shift, one), (second - shift, other)]
