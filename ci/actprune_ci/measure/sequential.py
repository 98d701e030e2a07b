"""When an A/B comparison has seen enough: intervals at looks whose error is bounded in sum."""

from math import log1p

from actprune_ci.judge import statistics as st

ERROR = 0.05
"""The chance, over all looks, that an interval misses the median: spent as 1/(j(j+1)) of it at
look j (Lan and DeMets 1983 give the idea, the sum over j is 1)."""
GROWTH = 1.25
"""Pairs from one look to the next, so that looks are few."""


def looks(fewest: int, most: int) -> list[int]:
    """At how many pairs to look: fewest, about a quarter more each time, and at last most."""
    found, n = [], float(fewest)
    while round(n) < most:
        found.append(round(n))
        n = max(n * GROWTH, round(n) + 1.0)
    return [*found, most]


def spent(look: int, error: float = ERROR) -> float:
    """The share of an error that look j, from 1, may use; all of them together use it up."""
    return error / (look * (look + 1))


def settled(d: st.Array, smallest: float, p: float, look: int) -> bool:
    """Whether the log-ratios d (pairs,) of look j leave no question open.

    Either the interval of their median lies within the smallest relative effect that matters, or
    wholly beyond it, with a signed-rank p-value of at most p: what the gate then asks for.
    """
    low, high = (float(end) for end in st.median_interval(d, 1 - spent(look)))
    bound = log1p(smallest)
    if -bound <= low and high <= bound:
        return True
    return (low > bound or high < -bound) and float(st.signed_rank(d)) <= p


def beside(d: st.Array, threshold: float, look: int, error: float = ERROR) -> int:
    """On which side of a threshold the median of d (pairs,) lies: -1, 1, or 0 where in doubt.

    All looks together are wrong with at most the probability `error`.
    """
    low, high = (float(end) for end in st.median_interval(d, 1 - spent(look, error)))
    return 1 if low > threshold else -1 if high < threshold else 0
