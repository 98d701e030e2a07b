"""The choice of options: against every possible one on small cases, and its laws on large ones."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actprune.budget.knapsack import TOLERANCE, Errors, Sizes, choose


def costs(items: int, options: int, seed: int) -> tuple[Sizes, Errors]:
    """Random, with zero errors, equal sizes and options that are of no use among them."""
    made = np.random.default_rng(seed)
    sizes = made.integers(1, 12, (items, options))
    errors = made.lognormal(0, 3, (items, options)) * (made.random((items, options)) < 0.9)
    return sizes, errors


def total(table: Sizes | Errors, chosen: list[int]) -> float:
    return float(table[np.arange(len(chosen)), chosen].sum())


@given(
    items=st.integers(1, 5),
    options=st.integers(1, 5),
    seed=st.integers(0, 2**31),
    share=st.floats(0, 1),
)
def test_as_good_as_trying_them_all(items: int, options: int, seed: int, share: float) -> None:
    sizes, errors = costs(items, options, seed)
    least, most = int(sizes.min(1).sum()), int(sizes.max(1).sum())
    budget = least + int(share * (most - least))
    chosen = choose(sizes, errors, budget)
    assert total(sizes, chosen) <= budget
    best = min(
        total(errors, list(every))
        for every in itertools.product(range(options), repeat=items)
        if total(sizes, list(every)) <= budget
    )
    assert total(errors, chosen) <= (1 + TOLERANCE) * best + 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_a_larger_budget_is_never_worse(seed: int) -> None:
    sizes, errors = costs(30, 6, seed)
    least = int(sizes.min(1).sum())
    found = [total(errors, choose(sizes, errors, budget)) for budget in range(least, least + 150)]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]


def test_no_error_at_all_is_found() -> None:
    sizes, errors = np.array([[9, 1], [9, 1]]), np.array([[0.0, 1.0], [0.0, 2.0]])
    assert choose(sizes, errors, 18) == [0, 0]
    assert choose(sizes, errors, 17) == [1, 0]
    assert choose(sizes, errors, 2) == [1, 1]
