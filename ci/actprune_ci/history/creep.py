"""Steps in one direction weighed against creep: one slow ramp instead of many steps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]

GRID = 16
"""Places tried for either end of creep; twice, the second time around the best."""
MOST_STEPS = 12
"""Steps of a run that are weighed in all their combinations."""
SHORTEST_CREEP = 8
"""Rows of creep: what is shorter is a step."""
MOST_POINTS = 256


@dataclass(frozen=True)
class Fit:
    """A step or creep fitted to a series, in the series' own measure."""

    kind: Literal["step", "creep"]
    start: int
    """The last row at the old level."""
    end: int
    """The first row at the new level."""
    before: float
    after: float
    strength: float
    """The fitted change over its standard error, for noise of standard deviation 1."""
    low: int
    high: int
    """The rows that it was fitted to: from low, before high."""
    error: float
    """The squared error left over them."""


def fitted(z: Series, found: Sequence[int], sigma: float, threshold: float) -> list[Fit]:
    """The cheapest steps and creep for the rows `found` at which a new level begins.

    The cost is the squared error in units of the noise, `threshold`² for each fit, and 4 log n
    for the second end that creep has.
    """
    made: list[Fit] = []
    for low, high, run in _runs(z, found):
        made += _cheapest(z, [low, *run, high], sigma, threshold)
    return made


def _runs(z: Series, found: Sequence[int]) -> Iterator[tuple[int, int, list[int]]]:
    """Neighbouring changes in one direction, with the changes on either side."""
    edges = [0, *found, len(z)]
    levels = [float(z[a:b].mean()) for a, b in pairwise(edges)]
    signs = np.sign(np.diff(levels))
    begin = 0
    for i in range(1, len(found) + 1):
        if i == len(found) or signs[i] != signs[begin] or i - begin == MOST_STEPS:
            yield edges[begin], edges[i + 1], list(found[begin:i])
            begin = i


def _cheapest(z: Series, edges: list[int], sigma: float, threshold: float) -> list[Fit]:
    """The best way to share the steps between edges among fitted (dynamic programming)."""
    middles = [edges[0], *((a + b) // 2 for a, b in pairwise(edges[1:-1])), edges[-1]]
    per_fit, per_creep = threshold**2, 4 * float(np.log(len(z)))
    best: list[tuple[float, list[Fit]]] = [(0.0, [])]
    for j in range(1, len(middles)):
        options = []
        for i in range(j):
            low, high = middles[i], middles[j]
            tried = [(fit_creep(z, low, high), per_creep)]
            if i == j - 1:
                tried.append((_fit_step(z, low, edges[j], high), 0.0))
            cost, fit = min(
                ((p.error / sigma**2 + extra, p) for p, extra in tried), key=lambda pair: pair[0]
            )
            options.append((best[i][0] + cost + per_fit, [*best[i][1], fit]))
        best.append(min(options, key=lambda pair: pair[0]))
    return best[-1][1]


def _fit_step(z: Series, low: int, at: int, high: int) -> Fit:
    left, right = z[low:at], z[at:high]
    error = float(left.var() * len(left) + right.var() * len(right))
    before, after = float(left.mean()), float(right.mean())
    strength = abs(after - before) / float(np.sqrt(1 / len(left) + 1 / len(right)))
    return Fit("step", at - 1, at, before, after, strength, low, high, error)


def fit_creep(z: Series, low: int, high: int) -> Fit:
    """The least-squares ramp between two levels over rows low to high; a short one is a step."""
    y = z[low:high]
    size = -(-len(y) // MOST_POINTS)
    count = len(y) // size
    x = (np.arange(count, dtype=np.float64) + 0.5) * size - 0.5
    y = y[: count * size].reshape(count, size).mean(1)
    ends = np.linspace(0, len(z[low:high]) - 1, GRID)
    begin, end = _best_ends(x, y, ends, ends)
    reach = ends[1] - ends[0]
    begins, ends = (np.linspace(at - reach, at + reach, GRID) for at in (begin, end))
    begin, end = _best_ends(x, y, begins, ends)
    shape = np.clip((x - begin) / (end - begin), 0, 1)
    centred = shape - shape.mean()
    norm = float(centred @ centred)
    height = float(centred @ y) / norm
    before = float(y.mean() - height * shape.mean())
    error = float(((y - before - height * shape) ** 2).sum()) * size
    error += float(z[low:high].var() * (high - low) - y.var() * count * size) if size > 1 else 0.0
    start = int(np.clip(np.floor(begin), 0, high - low - 2)) + low
    stop = int(np.clip(np.ceil(end), start - low + 1, high - low - 1)) + low
    kind: Literal["step", "creep"] = "creep" if stop - start > SHORTEST_CREEP else "step"
    strength = abs(height) * float(np.sqrt(norm * size))
    return Fit(kind, start, stop, before, before + height, strength, low, high, error)


def _best_ends(x: Series, y: Series, begins: Series, ends: Series) -> tuple[float, float]:
    """Of all pairs of ends the one with the least squared error."""
    b, e = (grid.ravel() for grid in np.meshgrid(begins, ends, indexing="ij"))
    fits = (e - b >= 1) & (b < x[-1]) & (e > x[0])
    b, e = b[fits], e[fits]
    shapes = np.clip((x - b[:, None]) / (e - b)[:, None], 0, 1)  # pairs x rows
    shapes -= shapes.mean(1, keepdims=True)
    norms = np.maximum((shapes**2).sum(1), 1e-12)
    best = int(np.argmax((shapes @ (y - y.mean())) ** 2 / norms))
    return float(b[best]), float(e[best])
