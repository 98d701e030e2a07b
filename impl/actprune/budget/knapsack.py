"""One option for each of several items: the least error within a budget of bytes."""

import math

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.01
"""What is chosen has at most this much more error than the best choice, relatively."""

Sizes = NDArray[np.int64]
Errors = NDArray[np.float64]


def choose(nbytes: Sizes, errors: Errors, budget: int) -> list[int]:
    """The option of each item; nbytes, errors: (items, options); errors are 0 or more.

    The sum of the bytes is at most `budget`, which must allow for the smallest of every item, and
    the sum of the errors within TOLERANCE of the least that there is; a larger budget never makes
    it larger. Item by item, of all sums so far those are kept that no smaller one matches in error,
    errors being told apart in steps of TOLERANCE / items (Ibarra and Kim 1975, for the
    multiple-choice problem).
    """
    items, options = nbytes.shape
    step = math.log1p(TOLERANCE) / items
    later = np.cumsum(nbytes.min(1)[::-1])[::-1] - nbytes.min(1)  # the least of what is to come
    sizes, sums = np.zeros(1, np.int64), np.zeros(1)
    kept: list[Sizes] = []
    for size, error, least in zip(nbytes, errors, later, strict=True):
        sizes = (sizes[:, None] + size).ravel()  # sums so far x options
        sums = (sums[:, None] + error).ravel()
        kept.append(_frontier(sizes, sums, budget - int(least), step))
        sizes, sums = sizes[kept[-1]], sums[kept[-1]]
    last, path = int(sums.argmin()), []
    for places in reversed(kept):  # the options that led to the last sum
        last, option = divmod(int(places[last]), options)
        path.append(option)
    return path[::-1]


def _frontier(sizes: Sizes, errors: Errors, limit: int, step: float) -> Sizes:
    """The places of the sums worth keeping, by size: each of a lower level than all before it."""
    fits = np.flatnonzero(sizes <= limit)
    order = fits[np.lexsort((errors[fits], sizes[fits]))]
    with np.errstate(divide="ignore"):
        levels = np.floor(np.log(errors[order]) / step)  # 0 is below all others
    before = np.minimum.accumulate(np.concatenate([[np.inf], levels[:-1]]))
    chosen: Sizes = order[levels < before]
    return chosen
