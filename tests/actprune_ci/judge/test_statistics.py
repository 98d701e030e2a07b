"""The gate's mathematics: against definitions, against scipy, and by its laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays
from scipy import stats

from actprune_ci.judge import statistics as st
from actprune_common.errors import InputError

PAIRS = arrays(float, some.integers(8, 60), elements=some.floats(-2, 2, width=32))


def ar1(random: np.random.Generator, shape: tuple[int, int], rho: float) -> st.Array:
    """Rows of an autoregressive process of variance 1."""
    x = random.standard_normal(shape)
    for i in range(1, shape[1]):
        x[:, i] = rho * x[:, i - 1] + np.sqrt(1 - rho**2) * x[:, i]
    return x


def noises(random: np.random.Generator, shape: tuple[int, int]) -> dict[str, st.Array]:
    """Log-ratios of equal code under what benchmarks are known to do."""
    modes = random.normal(0, 0.02, (2, *shape)) + 0.15 * (random.random((2, *shape)) < 0.3)
    return {
        "normal": random.normal(0, 0.121, shape),
        "heavy tails": 0.056 * random.standard_t(2, shape),
        "two modes": modes[1] - modes[0],
        "drift": 0.121 * ar1(random, shape, 0.3),
        "strong drift": 0.121 * ar1(random, shape, 0.6),
    }


def test_log_ratios_refuse_what_has_no_ratio() -> None:
    assert st.log_ratios([1.0, 2.0], [2.0, 1.0]) == pytest.approx([np.log(2), -np.log(2)])
    with pytest.raises(InputError, match=r"^head: expected figures above 0 for a ratio, got -1$"):
        st.log_ratios([1.0, 2.0], [2.0, -1.0])


def test_interval_is_the_exact_one_of_order_statistics() -> None:
    alternating = np.array([1.0, -1.0] * 10) * np.arange(1.0, 21.0)  # no positive autocorrelation
    low, high = st.median_interval(alternating, 0.95)
    ordered = np.sort(alternating)
    assert (low, high) == (ordered[5], ordered[14])  # the textbook's 6th and 15th of 20
    assert stats.binom.cdf(5, 20, 0.5) < 0.025 < stats.binom.cdf(6, 20, 0.5)


def test_interval_of_too_few_pairs_is_infinite() -> None:
    low, high = st.median_interval(np.zeros((3, 5)), 0.99)
    assert np.all(np.isneginf(low))
    assert np.all(np.isposinf(high))


@pytest.mark.parametrize("pairs", [20, 30, 60])
def test_interval_covers_as_often_as_it_says(pairs: int) -> None:
    random = np.random.default_rng(pairs)
    for name, d in noises(random, (2000, pairs)).items():
        low, high = st.median_interval(d, 0.99)
        covered = np.mean((low <= 0) & (high >= 0))
        assert covered >= 0.98, name
        assert name == "strong drift" or covered >= 0.985, name


def test_the_bootstrap_covers_less_often_which_is_why_it_is_not_used() -> None:
    d = noises(np.random.default_rng(0), (400, 20))["drift"]
    missed = {}
    for interval in (st.median_interval, st.bootstrap_interval):
        low, high = interval(d, 0.99)
        missed[interval] = np.mean((low > 0) | (high < 0))
    assert missed[st.bootstrap_interval] > 0.03
    assert missed[st.median_interval] < 0.015


def test_signed_rank_is_scipys() -> None:
    d = np.array([1.0, -1.0] * 15) * np.random.default_rng(0).random((5, 30)) + 0.1
    assert st.inflation(d) == pytest.approx(np.ones(5))
    expected = [stats.wilcoxon(row, method="asymptotic", correction=True).pvalue for row in d]
    assert st.signed_rank(d) == pytest.approx(expected, rel=0.06)  # scipy corrects by half as much


@pytest.mark.parametrize("pairs", [16, 30, 100])
def test_signed_rank_errs_towards_doubt(pairs: int) -> None:
    for name, d in noises(np.random.default_rng(pairs), (3000, pairs)).items():
        if not name.endswith("drift"):
            assert np.mean(st.signed_rank(d) < 0.01) < 0.015, name


@given(d=PAIRS)
def test_sides_are_treated_alike(d: st.Array) -> None:
    low, high = st.median_interval(d)
    mirrored = st.median_interval(-d)
    assert (low, high) == (-mirrored[1], -mirrored[0])
    assert low <= np.median(d) <= high
    assert st.signed_rank(d) == pytest.approx(st.signed_rank(-d))
    assert 0 <= st.signed_rank(d) <= 1
    assert 0 <= st.autocorrelation(d) <= 0.9


@given(d=PAIRS, shift=some.sampled_from([-0.5, 0.25, 1.0]))
def test_a_shift_moves_the_interval(d: st.Array, shift: float) -> None:
    d = np.round(d * 1024) / 1024  # so that the sums below are exact
    low, high = st.median_interval(d)
    assert st.median_interval(d + shift) == (low + shift, high + shift)
    assert st.spread(d + shift) == pytest.approx(st.spread(d))


def test_many_comparisons_are_as_each_alone() -> None:
    d = np.random.default_rng(1).normal(0, 1, (4, 3, 25))
    low, high = st.median_interval(d)
    p = st.signed_rank(d)
    for i, j in np.ndindex(4, 3):
        assert st.median_interval(d[i, j]) == (low[i, j], high[i, j])
        assert st.signed_rank(d[i, j]) == pytest.approx(p[i, j])
    assert st.bootstrap_interval(d)[0].shape == (4, 3)


def test_equal_times_are_no_evidence() -> None:
    assert st.signed_rank(np.zeros(30)) == 1
    assert max(map(abs, st.median_interval(np.zeros(30)))) == 0
    assert st.spread(np.zeros(30)) == 0


def test_rejected_is_the_papers_procedure() -> None:
    # Benjamini and Hochberg 1995, section 3.2: 15 p-values, rate 0.05, four are rejected
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    p += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    flags = st.rejected(p[::-1], 0.05)
    assert flags.tolist() == [False] * 11 + [True] * 4
    assert st.rejected([], 0.05).tolist() == []


@given(p=some.lists(some.floats(0, 1), max_size=40), rate=some.floats(0.001, 0.5))
def test_rejected_agrees_with_scipy(p: list[float], rate: float) -> None:
    expected = stats.false_discovery_control(p) <= rate if p else np.zeros(0, bool)
    bounds = np.isclose(stats.false_discovery_control(p), rate) if p else np.zeros(0, bool)
    assert np.all((st.rejected(p, rate) == expected) | bounds)


def test_proportion_interval_is_exact() -> None:
    expected = stats.binomtest(3, 100).proportion_ci(0.95, "exact")
    assert st.proportion_interval(3, 100) == pytest.approx((expected.low, expected.high))
    assert st.proportion_interval(0, 3000) == pytest.approx((0, 1 - 0.05 ** (1 / 3000)))
    assert st.proportion_interval(10, 10)[1] == 1


def test_asv_rule_needs_factor_and_evidence() -> None:
    random = np.random.default_rng(0)
    base = random.normal(1, 0.01, (1, 10))
    assert st.asv_rule(base, 1.2 * base).tolist() == [True]
    assert st.asv_rule(base, base / 1.2).tolist() == [True]
    assert st.asv_rule(base, 1.05 * base).tolist() == [False]
    assert st.asv_rule(base[:, :3], 1.2 * base[:, :3]).tolist() == [False]
