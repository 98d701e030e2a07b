"""Which changes of one series last, and which are a machine that goes and comes back.

Steps and creep cut a series into segments of one level each. A segment whose level was there before
ends an excursion: the machine was in another state, or a change was undone; neither lasts. What is
left is a chain of levels. Any two neighbours of it must pass two tests over all of their
measurements, excursions among them, or are taken as one level:

- the likelihood of a change amid noise of AR(1) against that of AR(1) alone, which explains slow
  wanderings without any change;
- a self-normalised test (Shao and Zhang 2010, JASA 105:1228), whose yardstick is how far the series
  wanders on either side of the change, whatever the law of its noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log, sqrt
from typing import Literal

import numpy as np

from actprune_ci.history.creep import Fit, Series

Standing = Literal["confirmed", "suspected", "passing", "shared"]

FEW = 8
"""Measurements that a new level needs before it is more than suspected."""
CHANCE = 0.02
"""That a state of the machine lasts as long as what is called a lasting level."""
BEYOND = 1.5
"""A step of more than so many times an excursion's height is not that state of the machine."""
BACK = 0.4
"""Of an excursion's height: what comes as near as that to the level before is that level again."""
OUTLASTS = 2
"""Times the longest state of its height: so long have both levels of a suspected change lasted."""
LIKELIER = 18.0
"""Twice the log-likelihood ratio that a change needs."""
WANDERS = 40.0
"""Of the self-normalised statistic: 95 % of series without a change stay below (simulated)."""
LOPSIDED = 3
"""Times the shorter side of a self-normalised test: the longer one has at most so many rows."""


@dataclass(frozen=True)
class Excursion:
    """A level that was left for an earlier one again."""

    rows: int
    height: float


@dataclass(frozen=True)
class Judged:
    """A fit with its standing, and for how many measurements the levels beside it have stood."""

    fit: Fit
    standing: Standing
    stood: int = 0
    held: int = 0


@dataclass(frozen=True)
class _Level:
    """A level of segments first to last, which excursions may interrupt."""

    first: int
    last: int
    rows: int
    """Without those of excursions."""
    height: float
    """The mean over these rows."""

    def __add__(self, other: "_Level") -> "_Level":
        rows = self.rows + other.rows
        height = (self.height * self.rows + other.height * other.rows) / rows
        return _Level(self.first, other.last, rows, height)


def long_enough(
    rows: int, step: float, excursions: Sequence[Excursion], share: float = 1.0
) -> bool:
    """Whether a level that a step led to has lasted longer than a state of the machine does.

    Where k excursions of exponential length lasted S rows in sum, the next one outlasts `rows` with
    a chance of (1 + rows / S)^-k, the Pareto law of prediction. It must be below CHANCE.

    Args:
        rows: how long the level has lasted.
        step: how far it is from the one before.
        excursions: those known; of them count the ones that are at least step / BEYOND high.
        share: the part of the machine's series that have excursions as high.
    """
    like = [each.rows for each in excursions if each.height * BEYOND >= step]
    return not like or share * (1 + rows / sum(like)) ** -len(like) <= CHANCE


def judged(z: Series, fits: Sequence[Fit], least: float) -> list[Judged]:
    """The fits of a series that are more than its wandering, in order, each with its standing.

    `least` is the least difference of two single values of `z` that is one: the threshold times the
    noise.
    """
    if not fits:
        return []
    segments = _segments(z, fits)
    chain, excursions = _chain(segments, least)
    known = list(excursions.values())
    chain, unclear = _clear(z, fits, _outlasting(chain, known))
    found = {
        i: Judged(fit, "passing", held=excursions[i].rows if i in excursions else 0)
        for i, fit in enumerate(fits)
        if i not in unclear
    }
    for a, b in pairwise(chain):
        step = b.height - a.height
        rises = [segments[i + 1].height - segments[i].height for i in range(a.last, b.first)]
        at = a.last + int(np.argmax(np.multiply(rises, np.sign(step))))
        lasts = b.rows >= FEW and long_enough(min(a.rows, b.rows), abs(step), known)
        found[at] = Judged(fits[at], "confirmed" if lasts else "suspected", a.rows, b.rows)
    return [found[i] for i in sorted(found)]


def _segments(z: Series, fits: Sequence[Fit]) -> list[_Level]:
    """What lies between the fits: segment i ends where fit i begins."""
    begins = [0, *(fit.end for fit in fits)]
    ends = [*(fit.start + 1 for fit in fits), len(z)]
    made = []
    for i, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        rows = max(1, int(end - begin))
        made.append(_Level(i, i, rows, float(np.median(z[begin : begin + rows]))))
    return made


def _chain(segments: Sequence[_Level], least: float) -> tuple[list[_Level], dict[int, Excursion]]:
    """The levels that were not left for an earlier one; the excursions, by the fit they begin."""
    heights = np.array([segment.height for segment in segments])
    chain: list[_Level] = []
    excursions = {}
    for i, segment in enumerate(segments):
        for j in range(len(chain) - 2, -1, -1):
            base, away = chain[j], chain[j + 1 :]
            height = float(np.abs(heights[away[0].first : i] - base.height).max())
            near = max(BACK * height, least * sqrt(1 / segment.rows + 1 / base.rows))
            if abs(segment.height - base.height) <= near:
                excursions[away[0].first - 1] = Excursion(sum(a.rows for a in away), height)
                chain[j:] = [base + segment]
                break
        else:
            chain.append(segment)
    return chain, excursions


def _outlasting(chain: Sequence[_Level], excursions: Sequence[Excursion]) -> list[_Level]:
    """The chain without the levels, but the newest, that lasted no longer than excursions do.

    The one before the newest need only be clearly longer than any of them: what is now is suspected
    rather than not told.
    """
    kept = list(chain)
    i = 0
    while i < len(kept) - 1:
        level, beside = kept[i], kept[i - 1 if i else 1]
        few = i > 0 and level.rows < FEW  # the first one may be young: the next has lasted
        step = abs(level.height - beside.height)
        longest = max((e.rows for e in excursions if e.height * BEYOND >= step), default=0)
        now = i == len(kept) - 2 and min(level.rows, kept[-1].rows) > OUTLASTS * longest
        if few or not (now or long_enough(level.rows, step, excursions)):
            del kept[i]
            i = 0
        else:
            i += 1
    return kept


def _clear(
    z: Series, fits: Sequence[Fit], chain: Sequence[_Level]
) -> tuple[list[_Level], set[int]]:
    """The chain once neighbours that the tests cannot tell apart are one, and the fits between."""
    kept, unclear = list(chain), set[int]()
    strengths = [_strength(z, fits, a, b) for a, b in pairwise(kept)]
    while strengths and min(strengths) < 1:
        i = int(np.argmin(strengths))
        unclear.update(range(kept[i].last, kept[i + 1].first))
        kept[i : i + 2] = [kept[i] + kept[i + 1]]
        del strengths[i]
        for j in {i - 1, i} & set(range(len(strengths))):
            strengths[j] = _strength(z, fits, kept[j], kept[j + 1])
    return kept, unclear


def _strength(z: Series, fits: Sequence[Fit], a: _Level, b: _Level) -> float:
    """How clear the change between two levels is: 1 is enough."""
    low = fits[a.first - 1].end if a.first else 0
    high = fits[b.last].start + 1 if b.last < len(fits) else len(z)
    fit = fits[b.first - 1]
    y = z[low:high] - z[low:high].mean()
    shape = np.clip((np.arange(low, high) - fit.start) / (fit.end - fit.start), 0, 1)
    shape -= shape.mean()
    rest = y - shape * (shape @ y) / max(shape @ shape, 1e-300)
    before, after = _innovations(y), _innovations(rest)
    likelier = (len(y) - 1) * log(before / max(after, 1e-300)) if before > 0 else 0.0
    k, rows = fit.end - low, high - fit.end
    if fit.kind == "creep" or rows < FEW:
        return likelier / LIKELIER
    left, right = y[max(0, k - LOPSIDED * rows) : k], y[k : k + LOPSIDED * k]
    return min(likelier / LIKELIER, _normalised(left, right) / WANDERS)


def _innovations(u: Series) -> float:
    """The mean square of what AR(1) leaves of a series around zero."""
    power = float(u[:-1] @ u[:-1])
    rho = min(max(float(u[1:] @ u[:-1]) / power, 0.0), 1.0) if power > 0 else 0.0
    return float(((u[1:] - rho * u[:-1]) ** 2).mean())


def _normalised(left: Series, right: Series) -> float:
    """Shao and Zhang's statistic for a change of the mean between two stretches."""
    n = len(left) + len(right)
    step = len(left) * len(right) / n**1.5 * (right.mean() - left.mean())
    wander = sum(float((np.cumsum(y - y.mean()) ** 2).sum()) for y in (left, right)) / n**2
    return float(step**2 / max(wander, 1e-300))
