"""What pairs tell of a change: one interval that says when to stop, and on which side it lies."""

from dataclasses import dataclass
from functools import cached_property
from math import expm1, isfinite

import numpy as np

from actprune_ci.judge import statistics
from actprune_ci.measure import sequential
from actprune_ci.measure.pairing import Limits, PairedFigure
from actprune_ci.model.metrics import Scale


@dataclass(frozen=True)
class Compared:
    """The change of a figure, as its pairs so far tell it.

    Intervals of all looks together miss the change with at most the probability `error`.
    """

    figure: PairedFigure
    limits: Limits
    error: float
    scale: Scale

    @property
    def measurable(self) -> bool:
        """Whether there are pairs, and the scale takes them: a ratio needs figures above 0."""
        pairs = (*self.figure.base, *self.figure.head)
        return bool(pairs) and (self.scale == "difference" or min(pairs) > 0)

    @cached_property
    def pairs(self) -> statistics.Array:
        """The change of each pair, (pairs,): a log-ratio, or a difference in the unit."""
        base, head = self.figure.base, self.figure.head
        if self.scale == "ratio":
            return statistics.log_ratios(base, head)
        return np.asarray(np.subtract(head, base), float)

    @property
    def change(self) -> float:
        """The median change."""
        return float(np.median(self.pairs))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Where the change lies, by the look that this is; infinite where pairs are too few."""
        if self.figure.exact:
            return self.change, self.change
        look = self.limits.look(len(self.pairs))
        low, high = statistics.median_interval(self.pairs, 1 - sequential.spent(look, self.error))
        return float(low), float(high)

    @property
    def least(self) -> float:
        """The part of the change that is sure, its sign kept; 0 where none is."""
        low, high = self.interval
        return low if low > 0 else high if high < 0 else 0.0

    @property
    def plain(self) -> bool:
        """Whether more than half of the change is sure."""
        return abs(self.least) > abs(self.change) / 2

    def side(self, threshold: float) -> int:
        """On which side of a threshold the change lies: -1, 1, or 0 where in doubt or equal."""
        low, high = self.interval
        return 1 if low > threshold else -1 if high < threshold else 0

    def __str__(self) -> str:
        """The change, its interval, and how many pairs told it."""
        told = f"{self._told(self.change)} in {len(self.pairs)} pairs"
        if self.figure.exact:
            return told
        if not all(map(isfinite, self.interval)):
            return f"{told}, too few to be sure"
        return "{}, surely {} to {}".format(told, *map(self._told, self.interval))

    def _told(self, change: float) -> str:
        if self.scale == "ratio":
            return f"{expm1(change):+.2%}"
        base = float(np.median(self.figure.base))
        share = f" ({change / base:+.2%})" if base > 0 and self.figure.exact else ""
        return f"{change:+g}{share}"


def scale_of(figure: PairedFigure) -> Scale:
    """Ratios where noisy figures are above 0; differences of exact ones, and where any is not."""
    noisy = not figure.exact and min((*figure.base, *figure.head), default=0.0) > 0
    return "ratio" if noisy else "difference"
