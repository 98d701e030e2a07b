"""The solver: against every possible choice on small graphs, its laws on large ones, its errors."""

import doctest
import itertools
import math
import random
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actprune import InputError
from actprune.solver import items as choices
from actprune.solver import search as solver
from actprune.solver.columns import columns_of
from actprune.solver.items import (
    AGAIN,
    LEVELS,
    Again,
    Choice,
    Cut,
    Item,
    Option,
    alternatives,
    check,
)
from actprune.solver.search import GAP, Quantity, least, solve

QUANTITIES: tuple[Quantity, ...] = ("seconds", "nbytes", "error")
OTHER: dict[Quantity, Quantity] = {"seconds": "nbytes", "error": "nbytes", "nbytes": "seconds"}


def graph(count: int, seed: int) -> list[Item]:
    """A few items with random options, dependencies and errors; each that is needed can be there.

    Costs are small whole numbers, so that many choices are equal in one of them.
    """
    draw = random.Random(seed)
    items: list[Item] = []
    for place in range(count):
        options = tuple(
            Option(
                f"{i}", draw.randint(0, 6), draw.randint(0, 3), draw.randint(0, 3), draw.random()
            )
            for i in range(draw.randint(0, 3))
        )
        inputs = tuple(draw.sample(range(place), draw.randint(0, min(place, 2))))
        errors = tuple(sorted(draw.choice([0.0, draw.random()]) for _ in LEVELS))
        again = Again(inputs, draw.randint(0, 4), errors) if draw.random() < 0.7 else None
        needed = draw.random() < 0.6
        if needed and not options:
            options = (Option("keep", draw.randint(1, 9)),)
        items.append(Item(f"t{place}", needed, options, again))
    return items


def every_choice(items: list[Item]) -> list[Choice]:
    """All that `check` lets through, with each level at which something is computed again."""
    made = []
    ways: list[list[tuple[int | None, int]]] = [
        [(place, option.level) for place, option in enumerate(item.options)]
        + [(AGAIN, level) for level in range(len(LEVELS)) if item.again is not None]
        + [(None, 0)] * (not item.needed)
        for item in items
    ]
    for taken in itertools.product(*ways):
        options, levels = zip(*taken, strict=True)
        choice = Choice(options, levels, *sums(items, options, levels), bound=0, gap=0)
        try:
            check(items, choice)
        except ValueError:
            continue
        made.append(choice)
    return made


def sums(
    items: list[Item], options: tuple[int | None, ...], levels: tuple[int, ...]
) -> tuple[int, float, float]:
    """Bytes, seconds and error of a choice."""
    nbytes, seconds, errors = 0, [], []
    for item, option, level in zip(items, options, levels, strict=True):
        if option == AGAIN:
            assert item.again is not None
            seconds.append(item.again.seconds)
            errors.append(item.again.errors[level])
        elif option is not None:
            nbytes += item.options[option].nbytes
            seconds.append(item.options[option].seconds)
            errors.append(item.options[option].error)
    return nbytes, math.fsum(seconds), math.fsum(errors)


def limited(choices: list[Choice], budget: int | None, error: float | None) -> list[Choice]:
    return [
        choice
        for choice in choices
        if (budget is None or choice.nbytes <= budget) and (error is None or choice.error <= error)
    ]


@given(
    count=st.integers(1, 5),
    seed=st.integers(0, 2**31),
    minimise=st.sampled_from(QUANTITIES),
    budget=st.none() | st.integers(0, 20),
    error=st.none() | st.floats(0, 2),
)
def test_as_good_as_trying_them_all(
    count: int, seed: int, minimise: Quantity, budget: int | None, error: float | None
) -> None:
    items = graph(count, seed)
    choices = every_choice(items)
    within = limited(choices, budget, error)
    if not within:
        with pytest.raises(
            InputError, match=r"expected at least .*, the least that this graph can"
        ):
            solve(items, budget=budget, error=error, minimise=minimise)
        return
    found = solve(items, budget=budget, error=error, minimise=minimise)
    check(items, found)
    assert limited([found], budget, error)
    best = min(within, key=lambda c: (getattr(c, minimise), getattr(c, OTHER[minimise])))
    assert getattr(found, minimise) == pytest.approx(getattr(best, minimise), rel=1e-9)
    assert getattr(found, OTHER[minimise]) == getattr(best, OTHER[minimise])
    assert (found.gap, found.bound) == (0, getattr(found, minimise))
    assert (found.nbytes, found.seconds, found.error) == sums(items, found.options, found.levels)
    early = solve(items, budget=budget, error=error, minimise=minimise, exact=False)
    check(items, early)
    assert limited([early], budget, error)
    assert early.bound <= getattr(best, minimise) * (1 + 1e-9)
    assert getattr(best, minimise) <= getattr(early, minimise) * (1 + 1e-9)


@given(count=st.integers(1, 5), seed=st.integers(0, 2**31), error=st.none() | st.floats(0, 2))
def test_what_is_said_to_be_least_is_least(count: int, seed: int, error: float | None) -> None:
    items = graph(count, seed)
    within = limited(every_choice(items), None, error)
    if not within:
        finest = min(choice.error for choice in every_choice(items))
        text = rf"^error: expected at least {finest!r}, the least that this graph can have, got "
        with pytest.raises(InputError, match=text):
            least(items, error)
        return
    fewest = least(items, error)
    assert fewest == min(choice.nbytes for choice in within)
    assert solve(items, budget=fewest, error=error).nbytes == fewest
    suffix = "" if error is None else f" within an error of {error}"
    text = (
        f"budget: expected at least {fewest} bytes, the least that this graph can hold{suffix}, "
        f"got {fewest - 1}"
    )
    with pytest.raises(InputError) as raised:
        solve(items, budget=fewest - 1, error=error)
    assert str(raised.value) == text


@given(count=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_a_larger_budget_never_takes_longer(count: int, seed: int) -> None:
    items = graph(count, seed)
    seconds = [solve(items, budget=least(items) + more).seconds for more in range(0, 16, 3)]
    assert seconds == sorted(seconds, reverse=True)


def blocks(count: int, seed: int = 0) -> list[Item]:
    """The forward pass of a transformer: kept, in 8 or in 4 bits, or computed again.

    Bytes of each are far apart, up to 1e11, and no two blocks cost quite the same.
    """
    draw = random.Random(seed)
    items: list[Item] = []

    def add(name: str, nbytes: int, *inputs: int, seconds: float, needed: bool = True) -> int:
        errors = tuple(needed * draw.uniform(0.9, 1.1) * each for each in (0, 1e-5, 4e-3, 1))
        options = (
            Option("keep", nbytes),
            Option("codes:bits=8", nbytes * 13 // 50, nbytes * 2e-11, 1, errors[1]),
            Option("codes:bits=4", nbytes * 27 // 200, nbytes * 3e-11, 2, errors[2]),
        )
        again = Again(inputs, seconds * draw.uniform(1, 1.3), errors) if inputs else None
        items.append(Item(name, needed, options, again))
        return len(items) - 1

    x = add("input", unit := 2_684_354_560, seconds=0, needed=False)
    for block in map(str, range(count)):
        norm = add(block + ".norm1", unit, x, seconds=0.02)
        qkv = add(block + ".qkv", 3 * unit, norm, seconds=1.2, needed=False)
        heads = [add(f"{block}.{name}", unit, qkv, seconds=0.01) for name in "qkv"]
        mixed = add(block + ".attention", unit, *heads, seconds=0.9)
        add(block + ".statistics", 20_971_520, *heads, seconds=0.9)
        out = add(block + ".proj", unit, mixed, seconds=0.4, needed=False)
        x = add(block + ".add1", unit, x, out, seconds=0.02)
        norm = add(block + ".norm2", unit, x, seconds=0.02)
        wide = add(block + ".fc1", 4 * unit, norm, seconds=1.6)
        gelu = add(block + ".gelu", 4 * unit, wide, seconds=0.05)
        out = add(block + ".fc2", unit, gelu, seconds=1.6, needed=False)
        x = add(block + ".add2", unit, x, out, seconds=0.02)
    return items


@pytest.mark.parametrize("error", [None, 0.02])
def test_a_swept_budget_is_held_and_takes_longer_the_less_it_is(error: float | None) -> None:
    items = blocks(16)
    dense = sum(item.options[0].nbytes for item in items if item.needed)
    fewest = least(items, error)
    assert fewest < 0.01 * dense
    seconds, gaps = [], []
    for step in range(11):
        budget = int(dense * (fewest / dense) ** (step / 10)) if step < 10 else fewest
        found = solve(items, budget=budget, error=error)
        check(items, found)
        assert found.nbytes <= budget
        assert error is None or found.error <= error
        assert (found.nbytes, found.seconds, found.error) == sums(
            items, found.options, found.levels
        )
        assert found.bound == pytest.approx(found.seconds * (1 - found.gap))
        seconds.append(found.seconds)
        gaps.append(found.gap)
    assert seconds[0] == 0
    assert all(more >= less * (1 - GAP) for less, more in itertools.pairwise(seconds))
    assert max(gaps) <= GAP


@pytest.mark.parametrize(
    ("count", "share"), [(2, 0.38), (2, 0.26), (2, 0.16), (2, 0.04), (3, 0.03)]
)
def test_the_bound_is_true_where_the_search_ends_early(count: int, share: float) -> None:
    """In the last, nothing near the relaxation is within the limits."""
    items = blocks(count)
    budget = int(share * sum(item.options[0].nbytes for item in items if item.needed))
    quick = solve(items, budget=budget, error=0.01, exact=False)
    best = solve(items, budget=budget, error=0.01, exact=True)
    assert best.gap == 0
    assert quick.bound <= best.seconds * (1 + 1e-9)
    assert best.seconds <= quick.seconds * (1 + 1e-9)
    assert quick.seconds * (1 - quick.gap) == pytest.approx(quick.bound)
    assert quick == solve(items, budget=budget, error=0.01, exact=False)


def test_what_rounding_puts_above_a_limit_is_not_taken() -> None:
    """Three times 0.1 is more than 0.3; of thirty all threes are equal."""
    options = Option("keep", 1), Option("codes", 0, level=1, error=0.1)
    found = solve([Item("x", True, options)] * 30, error=0.3, minimise="nbytes")
    assert found.nbytes == 28
    huge = 10**12
    near = [Item("x", True, (Option("keep", huge + i), Option("less", 1, 1))) for i in range(5)]
    assert solve(near, budget=huge * 2 + 4).nbytes <= huge * 2 + 4
    assert solve(near, budget=huge * 2 + 4).seconds == 3
    assert solve(near, budget=huge * 2 + 3).seconds == 4


def test_levels_are_told_apart() -> None:
    """What is computed again from codes is as wrong as they are."""
    x = Item("x", True, (Option("keep", 8), Option("codes", 2, 1.0, 2, 0.001)))
    y = Item("y", True, (Option("keep", 8),), Again((0,), 2.0, (0.0, 0.01, 0.5, 1.0)))
    cheap = solve([x, y], budget=2)
    assert (cheap.options, cheap.levels, cheap.error) == ((1, AGAIN), (2, 2), 0.501)
    exact = solve([x, y], budget=8)
    assert (exact.options, exact.levels, exact.error) == ((0, AGAIN), (0, 0), 0.0)
    assert solve([x, y], budget=10, error=0.1).options == (1, 0)
    assert solve([x, y], budget=10, error=0.0).options == (0, AGAIN)


def test_what_serves_nothing_is_not_there() -> None:
    spare = Item("spare", False, (Option("keep", 0),), Again((), 0.0))
    found = solve([spare, Item("x", True, (Option("keep", 8),), Again((0,), 1.0))])
    assert found.options == (None, 0)
    again = Item("y", True, (), Again((1,), 1.0))
    every = columns_of([spare, replace(spare, name="x"), again])
    assert every.choice([0, 2, 4]).options == (None, 0, AGAIN)
    assert solve([]).options == ()
    assert solve([replace(spare, options=(), again=None)]).options == (None,)


def test_alternatives_alone_are_solved_to_the_end() -> None:
    """As many groups and candidates as a profile has; no error at all is found where it fits."""
    draw = np.random.default_rng(0)
    nbytes = draw.integers(1, 10**6, (200, 15))
    errors = draw.lognormal(0, 3, (200, 15)) * (draw.random((200, 15)) < 0.9)
    items, fewest = alternatives(nbytes, errors), int(nbytes.min(1).sum())
    found = [
        solve(items, budget=fewest * share // 10, minimise="error") for share in range(10, 101, 15)
    ]
    assert {choice.gap for choice in found} == {0.0}
    assert all(a.error >= b.error for a, b in itertools.pairwise(found))
    assert found[0].nbytes == fewest
    assert found[-1].error == errors.min(1).sum()


def test_examples_run() -> None:
    done = doctest.testmod(solver, extraglobs=vars(choices))
    assert (done.failed, done.attempted) == (0, 6)


def test_scipy_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(InputError, match=r"^budget: expected the package scipy, .*pip install"):
        solve([Item("x", True, (Option("keep", 1),))])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([Item("x", True, ())], "^x: needed, but can be neither held nor computed again$"),
        (
            [Item("x", False, ()), Item("y", True, (), Again((0,), 1.0))],
            "^y: needed, but can be neither held nor computed again$",
        ),
        (
            [Item("x", True, (), Again((1,), 1.0)), Item("y", True, (Option("keep", 1),))],
            "^x: expected to be computed from earlier items$",
        ),
        (
            [Item("x", True, (Option("keep", -1),))],
            "^items: expected seconds, bytes and errors of 0 or more$",
        ),
    ],
)
def test_wrong_items_are_named(items: list[Item], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve(items)


def test_a_budget_below_nothing_is_never_met() -> None:
    for options in ((), (Option("keep", 1),)):
        items = [Item("x", False, options)]
        assert solve(items, budget=0).nbytes == 0
        with pytest.raises(InputError, match=r"^budget: expected at least 0 bytes.*got -1$"):
            solve(items, budget=-1)


# Cuts


def cuts_of(items: list[Item], count: int, seed: int) -> list[Cut]:
    """Limits with random weights: what is held counts so much, or as if it were whole, or not."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        weights: dict[tuple[int, int], float] = {}
        for place, item in enumerate(items):
            whole, counts = draw.choice((0, 0, 5)), draw.random() < 0.8
            for option, each in enumerate(item.options):
                weights[place, option] = counts * max(each.nbytes, whole)
            if draw.random() < 0.7:
                weights[place, AGAIN] = draw.randint(0, 5)
        found.append(Cut(weights, draw.randint(0, 12)))
    return found


def alive(cut: Cut, choice: Choice) -> float:
    """What a choice has alive at the moment of a cut."""
    taken = enumerate(choice.options)
    return sum(cut.weights.get((p, o), 0) for p, o in taken if o is not None)


@given(
    count=st.integers(1, 5),
    seed=st.integers(0, 2**31),
    minimise=st.sampled_from(QUANTITIES),
    budget=st.none() | st.integers(0, 20),
    error=st.none() | st.floats(0, 2),
    cuts=st.integers(1, 3),
)
def test_within_cuts_as_good_as_trying_them_all(
    count: int,
    seed: int,
    minimise: Quantity,
    budget: int | None,
    error: float | None,
    cuts: int,
) -> None:
    items = graph(count, seed)
    limits = cuts_of(items, cuts, seed)
    within = [
        choice
        for choice in limited(every_choice(items), budget, error)
        if all(alive(cut, choice) <= cut.most for cut in limits)
    ]
    if not within:
        text = "^cuts: expected limits that a choice can be within, got none such$"
        with pytest.raises(InputError, match=text):
            solve(items, budget=budget, error=error, minimise=minimise, cuts=limits)
        return
    found = solve(items, budget=budget, error=error, minimise=minimise, cuts=limits)
    check(items, found)
    assert limited([found], budget, error)
    assert all(alive(cut, found) <= cut.most for cut in limits)
    best = min(getattr(choice, minimise) for choice in within)
    assert getattr(found, minimise) == pytest.approx(best, rel=1e-9)
    assert found.gap == 0


def test_a_cut_forbids_what_is_alive_at_its_moment() -> None:
    """Bytes of a real size; what is held in few bits may be whole there, and others not."""
    size = 10**10
    options = Option("keep", size), Option("codes", size // 8, 1.0, 2)
    items = [Item(str(place), True, options) for place in range(4)]
    assert solve(items).options == (0, 0, 0, 0)
    most = size + 3 * size // 8
    weights = {(p, o): items[p].options[o].nbytes for p in range(4) for o in range(2)}
    found = solve(items, cuts=[Cut(weights, most)])
    assert sorted(o for o in found.options if o is not None) == [0, 1, 1, 1]
    decoded = weights | {(0, 1): size}
    assert solve(items, cuts=[Cut(decoded, most)]).options == (0, 1, 1, 1)
    with pytest.raises(InputError, match=r"^cuts: expected limits"):
        solve(items, cuts=[Cut(decoded, size)])
    assert solve(items, cuts=[Cut({}, 0)]).options == (0, 0, 0, 0)


def test_cuts_of_nothing_forbid_what_counts() -> None:
    items = [Item("x", True, (Option("keep", 8), Option("codes", 2, 1.0, 2)), Again((), 3.0))]
    assert solve(items, cuts=[Cut({(0, 0): 8, (0, 1): 2}, 0)]).options == (AGAIN,)
    assert solve(items, cuts=[Cut({(0, 0): 8, (0, AGAIN): 8}, 0)]).options == (1,)
