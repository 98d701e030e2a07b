"""The gate's mathematics: paired log-ratios, their median with an interval, and what is believed.

A pair is one figure of base and of head, measured right after one another in random order; d is
log(head / base), so what slows both sides down cancels. Because the order was drawn, equal code
makes d symmetric about zero whatever the noise (Fisher's randomisation argument), and the median of
d is the effect. Fresh processes per pair keep that true; where they were not fresh, neighbouring
pairs resemble each other, and the lag-1 autocorrelation of their ranks widens everything here.
All functions take many comparisons at once: the pairs are on the last axis.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from actprune_common.errors import InputError

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
RESAMPLES = 999
"""Of the bootstrap."""
MOST_CORRELATED = 0.9
"""A larger autocorrelation is taken for this: such pairs are of no use in any case."""


def log_ratios(base: Sequence[float] | Array, head: Sequence[float] | Array) -> Array:
    """log(head / base) of each pair. Raises InputError for a figure that is not above zero."""
    sides = np.asarray(base, float), np.asarray(head, float)
    for name, side in zip(("base", "head"), sides, strict=True):
        if not np.all(side > 0):
            raise InputError(f"{name}: expected figures above 0 for a ratio, got {np.min(side):g}")
    return np.asarray(np.log(sides[1]) - np.log(sides[0]))


def autocorrelation(d: Array) -> Array:
    """The lag-1 autocorrelation of the ranks of d, (...,), its bias of -1/n undone, in [0, 0.9]."""
    n = d.shape[-1]
    if n < 3:
        return np.zeros(d.shape[:-1])
    ranks = stats.rankdata(d, axis=-1) - (n + 1) / 2
    power = np.sum(ranks**2, -1)
    lagged = np.sum(ranks[..., 1:] * ranks[..., :-1], -1)
    rho = np.divide(lagged, power, out=np.zeros_like(lagged), where=power > 0)
    return np.asarray(np.clip(rho + 1 / n, 0, MOST_CORRELATED))


def inflation(d: Array) -> Array:
    """What autocorrelation widens an error by, (...,): sqrt((1 + rho) / (1 - rho)) of an AR(1)."""
    rho = autocorrelation(d)
    return np.asarray(np.sqrt((1 + rho) / (1 - rho)))


def median_interval(d: Array, confidence: float = 0.99) -> tuple[Array, Array]:
    """The interval of the median of d, (...,) each; infinite where n is too small for `confidence`.

    From order statistics, which is exact for any distribution of independent d: the k-th smallest
    and largest, k the largest with P(Binomial(n, 1/2) < k) <= (1 - confidence) / 2 (David and
    Nagaraja, Order Statistics, 7.1). Autocorrelation moves k out by `inflation`. Chosen over the
    bootstrap, which covers too rarely at few pairs: docs/gate.md has the figures.
    """
    n = d.shape[-1]
    k = stats.binom.ppf((1 - confidence) / 2, n, 0.5)
    k = k if stats.binom.cdf(k - 1, n, 0.5) <= (1 - confidence) / 2 else k - 1
    place = np.floor(n / 2 - (n / 2 - k) * inflation(d)).astype(int)
    ordered = np.sort(d, -1)
    low = np.take_along_axis(ordered, np.maximum(place - 1, 0)[..., None], -1)[..., 0]
    high = np.take_along_axis(ordered, np.minimum(n - place, n - 1)[..., None], -1)[..., 0]
    known = place >= 1
    return np.where(known, low, -np.inf), np.where(known, high, np.inf)


def bootstrap_interval(d: Array, confidence: float = 0.99) -> tuple[Array, Array]:
    """The percentile bootstrap's interval of the median of d, (...,) each (Efron 1979).

    The same draws serve all comparisons. Calibration states its coverage beside that of
    `median_interval`.
    """
    draws = np.random.default_rng(0).integers(0, d.shape[-1], (RESAMPLES, d.shape[-1]))
    flat = d.reshape(-1, d.shape[-1])
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    ends = np.array([np.quantile(np.median(row[draws], 1), tails) for row in flat])
    ends = ends.reshape(*d.shape[:-1], 2)
    return ends[..., 0], ends[..., 1]


def signed_rank(d: Array) -> Array:
    """Two-sided p-values, (...,), of Wilcoxon's signed-rank test that d is symmetric about 0.

    The normal approximation with continuity correction: in the tail, at few pairs, it errs towards
    larger p. Differences of zero take part with their ranks halved to either side (Pratt 1959).
    z is divided by `inflation`.
    """
    n = d.shape[-1]
    ranks = stats.rankdata(np.abs(d), axis=-1)
    signed = np.sum(ranks * np.sign(d), -1)  # mean 0; variance: the sum of squares
    scale = np.sqrt(np.sum(np.where(d == 0, 0, ranks**2), -1))
    z = np.divide(
        np.maximum(np.abs(signed) - 1, 0), scale, out=np.zeros_like(scale), where=scale > 0
    )
    return np.asarray(2 * stats.norm.sf(z / inflation(d))) if n else np.ones(d.shape[:-1])


def rejected(p: Sequence[float] | Array, rate: float) -> Flags:
    """Which of a family's p-values stand at a false discovery rate (Benjamini, Hochberg 1995)."""
    return np.asarray(stats.false_discovery_control(p) <= rate)


def proportion_interval(found: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a rate, two-sided (Clopper, Pearson 1934); one-sided where none is."""
    tail = (1 - confidence) / (1 if found in (0, trials) else 2)
    low = stats.beta.ppf(tail, found, trials - found + 1) if found else 0.0
    high = stats.beta.ppf(1 - tail, found + 1, trials - found) if found < trials else 1.0
    return float(low), float(high)


def spread(d: Array) -> Array:
    """The scatter of d about its median, (...,): 1.4826 times the median absolute deviation."""
    return np.asarray(1.4826 * stats.median_abs_deviation(d, axis=-1))


def asv_rule(base: Array, head: Array, factor: float = 1.1, p: float = 0.002) -> Flags:
    """Where `asv compare` reports a change: medians `factor` apart, Mann-Whitney's p below `p`.

    For the comparison in docs/gate.md; the gate does not use it.
    """
    ratio = np.median(head, -1) / np.median(base, -1)
    test: Any = stats.mannwhitneyu(base, head, axis=-1)
    return np.asarray((np.maximum(ratio, 1 / ratio) > factor) & (test.pvalue < p))
