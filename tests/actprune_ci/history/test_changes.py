"""What machines do is no step of the code: simulated states, drift, glitches, moves in common."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from actprune_ci.history.changes import Change, changes
from actprune_ci.history.machine import settled
from actprune_ci.history.states import CHANCE, Excursion, long_enough
from actprune_ci.history.trials import Rates, bound, calmed, rates, shuffled
from benchmarks.scripts.history_trials import drifting, sticky

Matrix = NDArray[np.float64]
SERIES = 200


def white(commits: int, series: int = SERIES, noise: float = 0.01, seed: int = 0) -> Matrix:
    drawn = np.random.default_rng([seed, commits]).normal(size=(commits, series))
    made: Matrix = np.exp(noise * drawn)
    return made


def analysed(matrix: Matrix) -> list[list[Change]]:
    noisy = [False] * matrix.shape[1]
    return settled(changes(matrix, noisy), matrix, noisy)[0]


def share(standing: str, found: list[list[Change]]) -> float:
    """The part of the series with a change of that standing."""
    return float(np.mean([any(c.standing == standing for c in column) for column in found]))


# --- noise, drift, states ---------------------------------------------------------------------


@pytest.mark.parametrize("commits", [30, 60, 120, 400])
def test_autocorrelated_noise_has_no_step(commits: int) -> None:
    found = changes(drifting(commits, SERIES, 0.8), [False] * SERIES)
    assert share("confirmed", found) <= 0.02


@pytest.mark.parametrize("commits", [60, 120, 200])
@pytest.mark.parametrize(("slow", "fast"), [(5, 20), (10, 30), (20, 40), (20, 100)])
@pytest.mark.parametrize("same", [True, False])
def test_a_machine_s_states_are_no_steps(commits: int, slow: int, fast: int, same: bool) -> None:
    found = analysed(sticky(commits, SERIES, slow, fast, same=same))
    assert share("confirmed", found) <= 0.02


def test_the_states_of_a_single_figure_are_no_steps_once_it_has_shown_them() -> None:
    found = changes(sticky(300, SERIES, 10, 30), [False] * SERIES)
    assert share("confirmed", found) <= 0.02


def test_a_step_beyond_a_machine_s_states_is_found() -> None:
    matrix = sticky(200, 50, 10, 30)
    matrix[100:, :5] *= 1.4
    found = analysed(matrix)
    assert share("confirmed", found[:5]) >= 0.8
    assert share("confirmed", found[5:]) == 0


def test_a_level_that_was_left_again_is_passing() -> None:
    matrix = white(120, 1)
    matrix[40:60] *= 1.1
    (found,) = changes(matrix)
    assert [(c.standing, c.held) for c in found] == [("passing", 20), ("passing", 0)]


def test_what_was_undone_and_is_there_again_is_suspected() -> None:
    matrix = white(140, 20)
    matrix[40:50, 0] *= 1.2
    matrix[80:, 0] *= 1.2
    assert [c.standing for c in analysed(matrix)[0]] == ["passing", "passing", "suspected"]
    assert [c.standing for c in analysed(matrix[:95])[0]] == ["passing"] * 3  # as that before


def test_a_level_comes_back_though_not_quite() -> None:
    matrix = white(120, 1, 0.001)
    matrix[40:60] *= 1.1
    matrix[60:] *= 1.02
    (found,) = changes(matrix)
    assert [c.standing for c in found] == ["passing", "passing"]


def test_a_slow_state_that_comes_ever_more_often_is_seldom_a_step() -> None:
    matrix = white(200, 300)
    often = np.linspace(0, 0.5, 200)[:, None]
    matrix *= np.exp(0.2 * (np.random.default_rng(1).random(matrix.shape) < often))
    assert share("confirmed", changes(matrix)) <= 0.25


def test_a_level_is_confirmed_once_it_outlasts_the_excursions_before() -> None:
    matrix = white(200, 1)
    for at in (20, 50, 80):
        matrix[at : at + 5] *= 1.1
    matrix[120:] *= 1.1
    assert [c.standing for c in changes(matrix[:140])[0]] == ["passing"] * 6 + ["suspected"]
    assert [c.standing for c in changes(matrix)[0]] == ["passing"] * 6 + ["confirmed"]


def test_how_long_is_long_enough() -> None:
    known = [Excursion(5, 0.1), Excursion(15, 0.1), Excursion(100, 0.01)]
    least = 20 * (CHANCE**-0.5 - 1)  # two of them are like a step of 0.1: (1 + rows / 20)^-2
    assert long_enough(round(least + 1), 0.1, known)
    assert not long_enough(round(least - 1), 0.1, known)
    assert long_enough(1, 0.2, known)  # beyond all of them
    assert long_enough(1, 0.1, known, share=CHANCE)  # nearly no figure has any


# --- the newest commits -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [1.1, 1.3])
def test_a_glitch_at_the_end_is_suspected_at_most(size: float) -> None:
    matrix = white(100)
    matrix[-2:] *= size
    found = analysed_apart(matrix)
    assert share("confirmed", found) == 0
    (effects,) = [[c.effect for column in found for c in column]]
    assert np.median(effects) == pytest.approx(size - 1, abs=0.01)


def analysed_apart(matrix: Matrix) -> list[list[Change]]:
    return changes(matrix, [False] * matrix.shape[1])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_a_clear_step_at_the_end_is_suspected_at_once(count: int) -> None:
    matrix = white(100)
    matrix[-count:] *= 1.1
    found = analysed_apart(matrix)
    assert share("suspected", found) >= 0.95
    assert share("confirmed", found) == 0
    steps = [column[-1] for column in found if column]
    assert np.mean([step.first < 100 - count <= step.last for step in steps]) >= 0.9
    assert np.mean([step.held == count for step in steps]) >= 0.9


@pytest.mark.parametrize("count", [8, 15])
def test_a_step_that_has_lasted_is_confirmed(count: int) -> None:
    matrix = white(100)
    matrix[-count:] *= 1.1
    assert share("confirmed", analysed_apart(matrix)) >= 0.95


@pytest.mark.parametrize("count", [2, 4, 20, 60])
def test_levels_lie_within_what_was_measured(count: int) -> None:
    matrix = np.concatenate([white(120, noise=0.03), drifting(120, SERIES, 0.8)], axis=1)
    matrix[-count:] *= 1.3
    for values, column in zip(matrix.T, analysed_apart(matrix), strict=True):
        for change in column:
            assert values.min() <= min(change.before, change.after)
            assert values.max() >= max(change.before, change.after)


# --- moves in common --------------------------------------------------------------------------


def test_what_nearly_all_figures_do_is_the_machine_s() -> None:
    matrix = white(120, 30)
    matrix[60:, :27] *= 1.08
    matrix[90:, 3] *= 1.2
    matrix[60:, 5] *= 1.5  # more than the machine's part
    found = changes(matrix, [False] * 30)
    made, (move,) = settled(found, matrix, [False] * 30, ["box"] * 30, [i // 5 for i in range(30)])
    assert (move.group, move.last, move.figures, move.of) == ("box", 60, 26, 30)
    assert move.effect == pytest.approx(0.08, abs=0.01)
    standings = Counter((c.standing, i) for i, column in enumerate(made) for c in column)
    assert standings.pop(("confirmed", 3)) == standings.pop(("confirmed", 5)) == 1
    assert {standing for standing, _ in standings} == {"shared"}
    assert len(standings) >= 25


@pytest.mark.parametrize(
    ("moved", "factors", "families"),
    [
        (20, [1.08], 30),  # two thirds of them
        (30, [1.03, 1.2], 30),  # by different factors
        (30, [1.08], 2),  # of two benchmarks
    ],
)
def test_a_routine_that_many_figures_use_is_the_code_s(
    moved: int, factors: list[float], families: int
) -> None:
    matrix = white(120, 30, 0.005)
    for i in range(moved):
        matrix[60:, i] *= factors[i % len(factors)]
    names = [i % families for i in range(30)]
    made, moves = settled(changes(matrix), matrix, None, None, names)
    assert not moves
    assert share("confirmed", made) >= 0.95 * moved / 30


def test_machines_are_judged_apart() -> None:
    matrix = white(120, 40)
    matrix[60:, :20] *= 1.08
    groups = ["one"] * 20 + ["other"] * 20
    _, moves = settled(changes(matrix), matrix, None, groups)
    assert [move.group for move in moves] == ["one"]
    assert not settled(changes(matrix), matrix)[1]


# --- trials -----------------------------------------------------------------------------------


def test_trials_tell_the_error_rates() -> None:
    matrix = white(60, 60)
    matrix[30:, :10] *= 1.2  # what is confirmed is taken out before
    told = rates(matrix, trials=2)
    assert (told.series, told.false, told.false_in_blocks) == (120, 0, 0)
    assert told.within == 120
    assert told.found >= 0.95 * told.within


def test_nothing_noisy_has_no_rates() -> None:
    assert rates(np.full((40, 2), 3.0)) == Rates(0, 0, 0, 0, 0)


def test_the_bound_follows_noise_and_length() -> None:
    short, quiet, loud = (
        white(n, 1, noise)[:, 0] for n, noise in ((40, 0.01), (160, 0.01), (40, 0.02))
    )
    assert bound(quiet) < bound(short) < bound(loud)
    assert bound(short[:15]) == bound(short - 1) == float("inf")


def test_a_step_as_large_as_the_bound_is_found() -> None:
    for commits, noise in ((16, 0.01), (20, 0.01), (26, 0.01), (40, 0.02), (200, 0.05)):
        matrix = white(commits, SERIES, noise)
        limit = float(np.median([bound(column) for column in matrix.T]))
        matrix[commits // 2 :] *= 1 + limit
        assert share("confirmed", analysed_apart(matrix)) >= 0.95


def test_shuffles_stay_within_their_windows_and_blocks() -> None:
    matrix = np.arange(40.0)[:, None]
    matrix[5] = np.nan
    rng = np.random.default_rng(0)
    mixed = shuffled(matrix, [[0, 15, 40]], rng)[:, 0]
    assert np.isnan(mixed[5])
    assert sorted(mixed[~np.isnan(mixed)]) == [i for i in range(40) if i != 5]
    assert np.nanmax(mixed[:15]) == 14
    blocks = shuffled(matrix[6:], [[0, 34]], rng, 10)[:, 0]
    assert 2 <= np.count_nonzero(np.diff(blocks) != 1) <= 4


def test_a_calmed_matrix_has_one_level() -> None:
    matrix = white(100, 1)
    matrix[50:] *= 1.3
    calm = calmed(matrix, changes(matrix))
    assert np.median(calm[:50]) == pytest.approx(np.median(calm[50:]))
    assert calm[-1] == matrix[-1]


def test_what_others_were_away_by_far_explains_no_step() -> None:
    rng = np.random.default_rng(0)
    matrix = np.exp(rng.normal(0, 0.01, (80, 12)))
    matrix[20:, 0] *= 1.46  # this one is slower, and stays so
    for i in range(1, 12):  # code of the others that was ten times slower for a time
        matrix[4 * i : 4 * i + 25, i] *= 10
    columns, _ = settled(changes(matrix, [False] * 12), matrix, [False] * 12)
    (found,) = columns[0]
    assert (found.standing, found.first) == ("confirmed", 19)
