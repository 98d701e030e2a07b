"""Which cases of an exhaustive test run every day, and which are left to the nightly."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest


def sampled(*axes: Sequence[Any]) -> list[Any]:
    """Parameters for every combination; all are slow but a few, in which each value occurs."""
    count = max(map(len, axes))
    everyday = [tuple(axis[i % len(axis)] for axis in axes) for i in range(count)]
    return [
        pytest.param(*case, marks=() if case in everyday else pytest.mark.slow)
        for case in product(*axes)
    ]
