"""Where a series of figures over commits changed: steps, creep, and exact changes.

Noisy figures are split by optimal partitioning (`ruptures`' KernelCPD with a linear kernel, which
is PELT with the cost of a mean; Killick, Fearnhead, Eckley 2012) where a screen over windows of
doubling width saw something, so that ten thousand commits cost about as much as the few hundred
around their changes. The penalty is the square of the threshold that a difference of two means must
pass, in units of the noise. Runs of steps in one direction are then weighed against creep: one
slow ramp, which steps alone describe badly. All of them are weighed against what the series does
without any change (actprune_ci.history.states).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile
from math import sqrt
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import median_filter
from scipy.stats import t as student

from actprune_ci.history.creep import Fit, Series, fitted
from actprune_ci.history.states import Standing, judged

SHORTEST = 3
"""Measurements that a level needs: fewer are an outlier."""
FEWEST = 6
"""Measurements that a noisy series needs: fewer tell nothing of its noise."""
LOOSELY = 1e-2
"""Chance that a series of independent noise has a candidate; what they are worth is asked later."""
OUTLIER = 3.5
"""Of the noise: what differs by more from the median of five neighbours is replaced by it."""
LIKELY = 7.7
"""Of twice the log-likelihood: the change lies within, 95 % (Bai 1997, Econometric Theory 13)."""
RECENT = 5
"""Rows that the newest ones are compared with, as each row is with those before it."""
LATE = 1.25
"""Times the farthest that earlier rows were from those before them: the newest are suspected."""
REMEMBERED = 500
BLOCK, BLOCKS = 5, 40
MOST_POINTS = 1024
"""Longer stretches are segmented over means of neighbours: they hold small, slow changes alone."""


@dataclass(frozen=True)
class Change:
    """A change of level of one series, by row of its matrix."""

    kind: Literal["step", "creep", "exact"]
    first: int
    """The last row that surely has the old level."""
    last: int
    """The first row that surely has the new one."""
    before: float
    after: float
    confidence: float
    """One minus the chance that a series without a change shows one like it, anywhere."""
    standing: Standing = "confirmed"
    """confirmed: the new level has lasted longer than the machine's states do; suspected: the
    newest change, of which the next measurements tell; passing: the level was left for an earlier
    one, or did not last; shared: nearly all figures of the machine moved alike."""
    stood: int = 0
    """Measurements of the old level, where the change is confirmed or suspected."""
    held: int = 0
    """Those of the new level so far; of a passing change, those until the old level was back (0:
    the change that brings it back)."""

    @property
    def effect(self) -> float:
        """The relative change, or the difference where a level is not above zero."""
        if min(self.before, self.after) > 0:
            return self.after / self.before - 1
        return self.after - self.before


def changes(
    matrix: Series,
    exact: Sequence[bool | None] | None = None,
    smallest: float | Sequence[float] = 0.01,
) -> list[list[Change]]:
    """The changes of each column of a matrix (commits x figures; NaN: not measured), in order.

    `exact` says per column whether every difference counts; None: where most neighbours are equal.
    `smallest` is the least effect of a noisy figure, as a fraction, or absolute for a figure that
    is not always above zero; one for all columns, or one each. Each column is judged
    by itself: what the figures of one machine say together, actprune_ci.history.machine.settled
    adds.
    """
    rules = exact if exact is not None else [None] * matrix.shape[1]
    least = [smallest] * len(rules) if isinstance(smallest, float) else smallest
    return [list(_of_series(*each)) for each in zip(matrix.T, rules, least, strict=True)]


def _of_series(column: Series, exact: bool | None, smallest: float) -> Iterator[Change]:
    rows = np.flatnonzero(np.isfinite(column))
    values = column[rows]
    exact = _repeats(values, exact)
    for change in _exact(values) if exact else _noisy(values):
        if exact or abs(change.effect) >= smallest:
            yield replace(change, first=int(rows[change.first]), last=int(rows[change.last]))


def noisy(column: Series, exact: bool | None = None) -> bool:
    """Whether a column holds a noisy figure, measured often enough to tell its noise."""
    values = column[np.isfinite(column)]
    return len(values) >= FEWEST and not _repeats(values, exact)


def _repeats(values: Series, exact: bool | None) -> bool:
    """Whether a figure is exact: as said, or else because most neighbours are equal."""
    if exact is None:
        return len(values) > 1 and bool(np.mean(np.diff(values) == 0) >= 0.8)
    return exact


def _exact(values: Series) -> Iterator[Change]:
    for i in map(int, np.flatnonzero(np.diff(values))):
        yield Change("exact", i, i + 1, float(values[i]), float(values[i + 1]), 1.0)


def _noisy(values: Series) -> Iterator[Change]:
    n = len(values)
    if n < FEWEST:
        return
    positive = bool((values > 0).all())
    raw = np.log(values) if positive else values
    sigma = noise(raw)
    if sigma == 0:
        return
    law = student(max(3, n / 3))  # the noise comes from medians of its differences
    threshold = float(law.isf(LOOSELY / (2 * n)))  # Bonferroni over the positions
    least = threshold * sigma
    calm = median_filter(raw, 5, mode="mirror")
    z = np.where(np.abs(raw - calm) > OUTLIER * sigma, calm, raw)
    late = _late(raw, least)
    z = z[: n - late] - np.median(z)
    places = _pruned(z, _candidates(z, sigma, threshold), sigma, threshold)
    found = judged(z, fitted(z, places, sigma, threshold), least)
    edges = [0, *(each.fit.end for each in found)]
    ends = [*(each.fit.start + 1 for each in found[1:]), len(z)]
    for each, begin, end in zip(found, edges, ends, strict=False):
        fit = each.fit
        first, last = _likely(z, fit, sigma) if fit.kind == "step" else (fit.start, fit.end)
        before = values[begin : max(fit.start + 1, begin + SHORTEST)]
        after = values[min(fit.end, end - SHORTEST) : end]
        confidence = 1 - min(1.0, 2 * n * float(law.sf(fit.strength / sigma)))
        rest = (confidence, each.standing, each.stood, each.held)
        yield Change(fit.kind, first, last, _median(before), _median(after), *rest)
    if late:
        at, old = n - late, values[edges[-1] : n - late]
        rest = (1 - LOOSELY, "suspected", len(old), late)
        yield Change("step", at - 1, at, _median(old), _median(values[at:]), *rest)


def _median(values: Series) -> float:
    return float(np.median(values))


def _late(raw: Series, least: float) -> int:
    """How many of the newest rows are far from those before them, but too few for a level.

    A row's distance is that from the median of the RECENT ones before; it must be larger than
    `least`, and by far the largest of the REMEMBERED ones.
    """
    raw = raw[-REMEMBERED:]
    if len(raw) < FEWEST + RECENT + SHORTEST:
        return 0
    bases = np.median(sliding_window_view(raw, RECENT), axis=1)
    for count in range(SHORTEST + 1, 0, -1):
        starts = np.arange(RECENT, len(raw) - count + 1)
        away = raw[starts[:, None] + np.arange(count)] - bases[starts - RECENT, None]
        least_away = np.abs(away).min(1) * (np.abs(np.sign(away).sum(1)) == count)
        if least_away[-1] > max(least, LATE * float(least_away[:-count].max())):
            return count if count < SHORTEST else 0  # enough for a level, which is found as such
    return 0


def noise(z: Series) -> float:
    """The standard deviation of a series' noise, whatever its steps and slopes.

    From the median of its second differences, which neither reach; where the noise of neighbours is
    alike (a machine that drifts), the larger one that means over several neighbours show.
    """
    white = _spread(np.diff(z, 2)) / sqrt(6)
    if white == 0:  # most neighbours are equal: what differs is all there is
        white = float(np.std(np.diff(z))) / sqrt(2)
    count = len(z) // BLOCK
    if count < BLOCKS:
        return white
    means = z[: count * BLOCK].reshape(count, BLOCK).mean(1)
    return max(white, _spread(np.diff(means, 2)) / sqrt(6 / BLOCK))


def _spread(differences: Series) -> float:
    return 1.4826 * float(np.median(np.abs(differences)))


def _candidates(z: Series, sigma: float, threshold: float) -> list[int]:
    """Rows where a new level may begin: screened width by width, what was found being taken out."""
    rest, found = z.copy(), set[int]()
    half = len(z) // 2
    for width in (*takewhile(half.__gt__, (4 << i for i in range(half))), half):
        for begin, end in _regions(rest, width, (threshold - 0.5) * sigma):
            for at, step in _segment(rest[begin:end], sigma, threshold):
                found.add(begin + at)
                rest[begin + at :] -= step
    return sorted(found)


def _regions(z: Series, width: int, threshold: float) -> Iterator[tuple[int, int]]:
    """Stretches around rows where the means of `width` values on either side differ."""
    n = len(z)
    total = np.concatenate([[0.0], np.cumsum(z)])
    at = np.arange(SHORTEST, n - SHORTEST + 1)
    low, high = np.maximum(at - width, 0), np.minimum(at + width, n)
    left, right = at - low, high - at
    step = (total[high] - total[at]) / right - (total[at] - total[low]) / left
    hits = at[np.abs(step) > threshold * np.sqrt(1 / left + 1 / right)]
    if not len(hits):
        return
    for run in np.split(hits, np.flatnonzero(np.diff(hits) > 4 * width) + 1):
        yield max(0, run[0] - 2 * width), min(n, run[-1] + 2 * width)


def _segment(z: Series, sigma: float, threshold: float) -> list[tuple[int, float]]:
    """Where the level changes and by how much, by optimal partitioning."""
    import ruptures

    size = -(-len(z) // MOST_POINTS)
    binned = z[: len(z) // size * size].reshape(-1, size).mean(1)
    if len(binned) < 2 * SHORTEST:
        return []
    split = ruptures.KernelCPD(kernel="linear", min_size=SHORTEST).fit(binned[:, None])
    ends = split.predict(pen=(threshold * sigma) ** 2 / size)
    places = sorted({_best(z, int(end) * size, size) for end in ends[:-1]})
    levels = [part.mean() for part in np.split(z, places)]
    return list(zip(places, np.diff(levels).tolist(), strict=True))


def _best(z: Series, near: int, within: int) -> int:
    """The row, at most `within` from `near`, that splits its surroundings best."""
    if within == 1:
        return near
    low, high = max(0, near - 8 * within), min(len(z), near + 8 * within)
    gain = _gain(z[low:high])
    places = np.arange(max(low + 1, near - within), min(high - 1, near + within) + 1)
    return int(places[np.argmax(gain[places - low - 1])])


def _gain(z: Series) -> Any:
    """How much less the squared error is with a split before row 1, 2, ...: (len(z) - 1,)."""
    n, at = len(z), np.arange(1, len(z))
    left = np.cumsum(z)[:-1]
    return (left - at * z.mean()) ** 2 * n / (at * (n - at))


def _pruned(z: Series, found: list[int], sigma: float, threshold: float) -> list[int]:
    """The rows that still stand as changes once the level between all of them is known."""
    kept = [0, *found, len(z)]
    while len(kept) > 2:
        levels = [z[a:b].mean() for a, b in pairwise(kept)]
        sizes = np.diff(kept)
        t = np.abs(np.diff(levels)) / np.sqrt(1 / sizes[:-1] + 1 / sizes[1:]) / sigma
        t[np.minimum(sizes[:-1], sizes[1:]) < SHORTEST] = 0
        weakest = int(np.argmin(t))
        if t[weakest] >= threshold:
            break
        del kept[weakest + 1]
    return kept[1:-1]


def _likely(z: Series, fit: Fit, sigma: float) -> tuple[int, int]:
    """The last row before and the first row after every likely place of a step."""
    gain = _gain(z[fit.low : fit.high])
    likely = np.flatnonzero(gain >= gain.max() - LIKELY * sigma**2) + fit.low + 1
    return int(likely[0]) - 1, int(likely[-1])
