"""Change points on simulated data of fixed seeds: what must be found, and what must not."""

import json
import re
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from actprune_ci.cli import app
from actprune_ci.history import history, series
from actprune_ci.history.changes import Change, changes, noise
from actprune_ci.judge.policy import Policy, Rule
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.store.store import write
from actprune_common.errors import InputError

SERIES = 200
Matrix = NDArray[np.float64]


def flat(commits: int, law: str, noise: float = 0.03, series: int = SERIES) -> Matrix:
    """Figures of 10 ms without a change, their noise of one of several laws."""
    rng = np.random.default_rng([commits, len(law)])
    shape = (commits, series)
    if law == "normal":
        drawn = rng.normal(size=shape)
    elif law == "laplace":
        drawn = rng.laplace(size=shape)
    elif law == "outliers":  # one in fifty is slower by ten times the noise
        drawn = rng.normal(size=shape) + 10 * (rng.random(shape) < 0.02)
    else:  # neighbours are alike: a machine that drifts
        drawn = rng.normal(size=shape)
        for i in range(1, commits):
            drawn[i] += 0.5 * drawn[i - 1]
    made: Matrix = 0.01 * np.exp(noise * drawn)
    return made


def of(standing: str, found: list[list[Change]]) -> list[list[Change]]:
    return [[change for change in column if change.standing == standing] for column in found]


@pytest.mark.parametrize("commits", [30, 100, 1000])
@pytest.mark.parametrize("law", ["normal", "laplace", "outliers"])
def test_noise_alone_is_no_change(law: str, commits: int) -> None:
    found = changes(flat(commits, law))
    assert sum(map(len, of("confirmed", found))) <= 1
    assert sum(map(len, of("suspected", found))) <= 2  # an outlier of the newest commit


@pytest.mark.parametrize("commits", [30, 100, 1000])
def test_a_drifting_machine_is_seldom_a_change(commits: int) -> None:
    assert sum(map(bool, of("confirmed", changes(flat(commits, "drift"))))) <= 0.01 * SERIES


@pytest.mark.parametrize("at", [10, 60, 112])
@pytest.mark.parametrize("direction", [1, -1])
def test_a_step_of_three_times_the_noise_is_found_where_it_is(at: int, direction: int) -> None:
    values = flat(120, "normal")
    values[at:] *= np.exp(direction * 0.09)
    found = changes(values)
    steps = [change for column in found for change in column]
    assert max(map(len, found)) == 1
    assert {step.kind for step in steps} == {"step"}
    inside = sum(step.first < at <= step.last for step in steps)
    assert inside >= (0.95 if at == 60 else 0.85) * SERIES  # eight commits tell less of a level
    assert np.median([step.last - step.first for step in steps]) <= 4
    assert np.median([step.effect for step in steps]) == pytest.approx(
        np.expm1(direction * 0.09), abs=0.01
    )
    assert all(step.confidence > 0.99 for step in steps)


def test_two_steps_and_a_return_are_three_changes() -> None:
    values = flat(300, "normal", 0.02)
    values[100:] *= 1.1
    values[150:] *= 1.1
    values[160:] /= 1.21
    for column in changes(values):
        assert [change.kind for change in column] == ["step"] * 3
        near = [abs(change.last - at) for change, at in zip(column, (100, 150, 160), strict=True)]
        assert max(near) <= 4


@pytest.mark.parametrize("quiet", [0, 30, 60])
@pytest.mark.parametrize("noise", [0.005, 0.01])
def test_creep_of_half_a_percent_a_night_is_one_finding(noise: float, quiet: int) -> None:
    values = flat(quiet + 31, "normal", noise)
    nights = np.clip(np.arange(len(values)) - quiet, 0, 30)
    values *= (1.005**nights)[:, None]
    found = changes(values)
    single = [column[0] for column in found if [c.kind for c in column] == ["creep"]]
    assert len(single) >= 0.95 * SERIES
    assert np.median([creep.effect for creep in single]) == pytest.approx(0.16, abs=0.02)
    if quiet:
        assert np.median([creep.first for creep in single]) == pytest.approx(quiet, abs=4)
    assert np.median([creep.last for creep in single]) == pytest.approx(quiet + 30, abs=4)


@pytest.mark.parametrize("noise", [0.02, 0.03])
def test_creep_is_found_under_more_noise_once_it_has_a_past(noise: float) -> None:
    values = flat(121, "normal", noise)
    values *= (1.005 ** np.clip(np.arange(121) - 90, 0, 30))[:, None]
    found = changes(values)
    assert sum(bool(column) for column in found) >= 0.95 * SERIES
    assert all(change.effect > 0 for column in found for change in column)


def test_creep_over_hundreds_of_commits_is_one_finding() -> None:
    values = flat(1000, "normal", 0.02, series=20)
    values *= np.exp(0.0005 * np.clip(np.arange(1000) - 400, 0, 300))[:, None]
    assert [[change.kind for change in column] for column in changes(values)] == [["creep"]] * 20


def test_exact_figures_change_exactly() -> None:
    values = np.full((50, 1), 1_000_000.0)
    values[20:] += 1  # one byte
    values[30:40] = np.nan
    values[41:] = 7
    (found,) = changes(values)
    assert [(c.kind, c.first, c.last, c.before, c.after) for c in found] == [
        ("exact", 19, 20, 1_000_000, 1_000_001),
        ("exact", 40, 41, 1_000_001, 7),
    ]


def test_an_exact_change_spans_the_commits_that_were_not_measured() -> None:
    values = np.array([3.0, 3, 3, 3, 3, 3, np.nan, np.nan, 4])[:, None]
    (found,) = changes(values)
    assert [(c.first, c.last) for c in found] == [(5, 8)]


def test_what_was_not_measured_moves_nothing() -> None:
    values = flat(240, "normal", series=50)
    values[120:] *= np.exp(0.09)
    values[np.random.default_rng(5).random(values.shape) < 0.5] = np.nan
    for column in changes(values):
        assert len(column) == 1
        assert column[0].first <= 120 <= column[0].last + 4


def test_effects_below_the_smallest_are_not_told() -> None:
    values = flat(400, "normal", 0.001)
    values[200:] *= 1.005
    assert sum(map(len, changes(values))) == 0
    assert all(len(column) == 1 for column in changes(values, smallest=0.003))


def test_figures_around_zero_are_compared_by_difference() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0, 0.1, (100, 1))
    values[50:] -= 1
    (found,) = changes(values)
    assert [change.kind for change in found] == ["step"]
    assert found[0].effect == pytest.approx(-1, abs=0.1)


@given(st.lists(st.floats(1e-6, 1e6) | st.just(float("nan")), max_size=40))
def test_any_series_has_ordered_changes_between_measured_rows(values: list[float]) -> None:
    (found,) = changes(np.array(values, dtype=float)[:, None])
    for change in found:
        assert 0 <= change.first < change.last < len(values)
        assert np.isfinite([values[change.first], values[change.last]]).all()
        assert 0 <= change.confidence <= 1


@given(st.floats(1e-3, 1e3), st.integers(0, 100))
def test_changes_do_not_depend_on_the_unit(scale: float, seed: int) -> None:
    values = 0.01 * np.exp(np.random.default_rng(seed).normal(0, 0.02, (60, 1)))
    values[30:] *= 1.2
    (one,), (other,) = changes(values), changes(values * scale)
    assert [(c.kind, c.first, c.last) for c in one] == [(c.kind, c.first, c.last) for c in other]


def test_noise_is_measured_past_steps_and_slopes() -> None:
    z = np.log(flat(500, "normal", 0.02, series=1)[:, 0])
    assert noise(z) == pytest.approx(0.02, rel=0.25)
    z[250:] += 3
    assert noise(z + 0.01 * np.arange(500)) == pytest.approx(0.02, rel=0.25)


# --- from a store ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A repository of 40 commits, a store of a night for each, and the commits.

    From commit 25 the kernel is 20 % slower; at commit 30 a buffer grows by a byte; an accuracy
    stays; one commit is measured twice, one from a changed tree, one is of another branch.
    """
    folder = tmp_path_factory.mktemp("nights")
    repo, store = folder / "repo", folder / "store"
    repo.mkdir()
    commits = _commits(repo, 40)
    rng = np.random.default_rng(0)
    for night, commit in enumerate(commits):
        write(_run(commit, night, 0.01 * (1.2 if night >= 25 else 1.0), rng), store)
    write(_run(commits[3], 3, 0.01, rng), store)
    write(replace(_run(commits[10], 10, 9.0, rng), dirty=True), store)
    write(_run("f" * 40, 11, 9.0, rng), store)
    return repo, store, commits


def _commits(repo: Path, count: int) -> list[str]:
    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        command = ["git", *who, "-C", str(repo), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q", "-b", "main")
    for number in range(count):
        git("commit", "-q", "--allow-empty", "-m", str(number))
    return git("rev-list", "--reverse", "main").split()


def _run(commit: str, night: int, seconds: float, rng: np.random.Generator) -> Run:
    spec = (("spec", "bsr:block=32"),)
    samples = seconds * np.exp(rng.normal(0, 0.02, 5))
    day = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(days=night)
    figures = (
        Measurement(Key("kernels.linear", spec), tuple(samples.tolist())),
        Measurement(Key("training", spec, "saved_bytes", "bytes"), (1000.0 + (night >= 30),)),
        Measurement(Key("training", spec, "accuracy", "%"), (float(80 + rng.normal(0, 0.1)),)),
    )
    return Run("asv", commit, False, day.isoformat(), "box", {}, figures)


def test_a_store_s_history_has_its_changes_with_their_commits(
    nights: tuple[Path, Path, list[str]],
) -> None:
    repo, store, commits = nights
    loaded = series.load(store, series.branch_commits(repo, "main"))
    assert loaded.commits == tuple(commits)
    assert [figure.name for figure in loaded.figures] == [
        "kernels.linear(spec=bsr:block=32)",
        *["training(spec=bsr:block=32)"] * 2,
    ]
    assert np.isfinite(loaded.values).all()
    assert loaded.values.max() < 2000  # neither the changed tree nor the other branch
    slower, bytes_ = history.findings(loaded)
    assert (slower.figure.metric, slower.change.kind) == ("time", "step")
    assert commits.index(slower.good) < 25 <= commits.index(slower.bad)
    assert slower.regression
    assert slower.lasting
    assert (bytes_.change.kind, bytes_.range) == ("exact", f"{commits[29]}..{commits[30]}")


def _figure(metric: str, unit: str, version: str = "", env: str = "e") -> series.HistoryFigure:
    return series.HistoryFigure("box", env, "training", metric, unit, version, "training", {})


def _over(values: NDArray[np.float64], *figures: series.HistoryFigure) -> series.History:
    return series.History(tuple(f"{i:040x}" for i in range(len(values))), figures, values)


def test_a_regression_that_went_away_does_not_last() -> None:
    values = np.full((30, 1), 5.0)
    values[10:20] = 6
    figure = _figure("saved_bytes", "bytes")
    commits = tuple(f"{i:040x}" for i in range(30))
    found = history.findings(series.History(commits, (figure,), values))
    assert {(f.regression, f.lasting) for f in found} == {(True, False), (False, True)}


def test_a_fall_of_accuracy_is_a_regression() -> None:
    values = np.full((30, 1), 81.0)
    values[10:] = 80
    figure = _figure("accuracy", "%")
    commits = tuple(f"{i:040x}" for i in range(30))
    (found,) = history.findings(series.History(commits, (figure,), values))
    assert (found.regression, found.lasting) == (True, True)


def test_many_small_changes_of_an_exact_figure_are_creep() -> None:
    nights = np.arange(120)
    grows = 1e6 * 1.009 ** (nights // 6)  # each of them is within the tolerance of 1 %
    to_and_fro = 1e6 * (1 + 0.009 * (nights // 8 % 2))
    jumps = np.where(nights < 60, grows, 2 * grows)
    falls = 90 - 0.4 * (nights // 15)
    counts = [_figure("instructions", "1", env=name) for name in ("grows", "to and fro", "jumps")]
    columns = np.array([grows, to_and_fro, jumps, falls]).T
    told = history.findings(_over(columns, *counts, _figure("accuracy", "%")))
    found: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for f in sorted(told, key=lambda f: f.change.first):
        assert f.regression
        place = f.figure.environment, f.figure.metric
        found.setdefault(place, []).append((f.change.kind, f.change.first))
    assert found == {
        ("grows", "instructions"): [("creep", 5)],
        ("jumps", "instructions"): [("creep", 5), ("exact", 59), ("creep", 65)],
        ("e", "accuracy"): [("creep", 14)],
    }


def test_where_a_noisy_figure_is_now_is_told_by_several_values() -> None:
    rng = np.random.default_rng(0)
    values = np.array([1 + 0.01 * rng.normal(size=30), np.full(30, 7.0)]).T
    values[27, 0] = np.nan
    told = history.looked_at(_over(values, _figure("time", "s"), _figure("nbytes", "bytes")))
    rows = [24, 25, 26, 28, 29]
    assert told[0]["recent"] == [(f"{row:040x}", values[row, 0]) for row in rows]
    assert told[1]["recent"] == [(f"{29:040x}", 7.0)]


def test_levels_at_zero_are_told_in_whatever_unit() -> None:
    rng = np.random.default_rng(0)
    level = 1e-3 * np.exp(0.01 * rng.normal(size=120))
    late = np.arange(120) >= 60
    values = np.array(
        [np.where(late, level, 0), np.where(late, 0, level), np.where(late, -level, level)]
    ).T
    names = "rel_error", "throughput", "images_per_second"
    units = "1", "GB/s", "images/s"
    figures = [_figure(*each) for each in zip(names, units, strict=True)]
    found = history.findings(_over(values, *figures))
    assert {(f.figure.metric, f.regression, f.change.first) for f in found} == {
        (name, True, 59) for name in names
    }


def test_the_smallest_change_of_a_policy_or_metric_counts_in_its_unit() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(120, 2))
    values = np.array([0.99, 0.1]) * (1 + np.array([5e-4, 2e-3]) * noise)
    values[60:] += [-0.015, 0.0015]  # less than 2 % of either
    figures = _figure("grad_cosine", "1"), _figure("time", "s")
    (found,) = history.findings(_over(values, *figures))
    assert (found.figure.metric, found.regression) == ("grad_cosine", True)
    asked = Policy(rules=(Rule(metric="time", smallest_change=0.001),))
    both = history.findings(_over(values, *figures), asked)
    assert {f.figure.metric for f in both if f.regression} == {"grad_cosine", "time"}


def test_the_command_prints_and_writes_the_findings(
    nights: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    repo, store, commits = nights
    out = tmp_path / "history.json"
    words = ["history", str(store), "--repo", str(repo), "--out", str(out)]
    done = CliRunner().invoke(app(), words)
    assert done.exit_code == 0, done.output
    assert "3 figures over 40 commits: 2 changes" in done.output
    assert "worse: kernels.linear(spec=bsr:block=32), time" in done.output
    assert "note: 1 measured commits are not in this clone and were not looked at: ffffffffff" in (
        done.output
    )
    assert "(1000 -> 1001 bytes)" in done.output
    document = json.loads(out.read_text("utf-8"))
    assert {f["range"] for f in document["findings"]} >= {f"{commits[29]}..{commits[30]}"}
    assert {f["newest"] for f in document["figures"]} == {commits[-1]}
    assert {f["measured"] for f in document["figures"]} == {40}
    only = CliRunner().invoke(app(), [*words, "--benchmarks", "^training"])
    assert "2 figures over 40 commits: 1 changes" in only.output


def test_the_error_rates_on_the_very_series_are_told(
    nights: tuple[Path, Path, list[str]],
) -> None:
    repo, store, _ = nights
    words = ["history", str(store), "--repo", str(repo)]
    told = re.compile(
        r"note: in trials on these series, a step that is none was told in 0 of (\d+) shuffled ones"
        r" \(0 of them in blocks\), and a planted \+5% was found in (\d+) of the (\d+) whose noise"
        r" allows it"
    )
    assert "in trials" not in CliRunner().invoke(app(), words).output
    (found,) = told.findall(CliRunner().invoke(app(), [*words, "--trials", "4"]).output)
    series_, hits, within = map(int, found)
    assert series_ % 4 == 0 < series_
    assert hits <= within <= series_


def test_no_data_and_bad_names_say_so(nights: tuple[Path, Path, list[str]]) -> None:
    repo, store, _ = nights
    words = ["history", str(store), "--repo", str(repo)]
    with pytest.raises(InputError, match="--benchmarks: no regular expression: nothing to repeat"):
        series.load(store, ["a"], "*")
    nothing = CliRunner().invoke(app(), [*words, "--benchmarks", "^nothing"])
    assert nothing.exit_code == 3
    assert "no figure of '^nothing' at any of the branch's 40 commits" in nothing.output
    with pytest.raises(InputError, match="branch next: fatal: bad revision 'next'"):
        series.branch_commits(repo, "next")
    with pytest.raises(InputError, match="no runs in this store"):
        series.load(store / "no", ["a"])


def test_the_policy_says_what_a_change_means() -> None:
    values = np.full((30, 4), 100.0)
    values[10:] *= [1.04, 1.04, 1.04, 0.96]
    names = (("occupancy", "1"), ("hmma", "1"), ("nbytes", "bytes"), ("accuracy", "%"))
    of = _over(values, *(_figure(*name) for name in names))
    rules = Policy(
        rules=(
            Rule(metric="accuracy", severity="warning", owner="training", smallest_change=5),
            Rule(metric="nbytes", severity="info", direction="higher"),
        )
    )
    found = {f.figure.metric: f for f in history.findings(of)}
    said = {name: (f.verdict, f.severity) for name, f in found.items()}
    assert said == {
        "occupancy": ("better", "error"),
        "hmma": ("changed", "error"),
        "nbytes": ("worse", "error"),
        "accuracy": ("worse", "error"),
    }
    assert found["accuracy"].size == "-4"  # points, not percent
    ruled = {f.figure.metric: f for f in history.findings(of, rules)}
    assert set(ruled) == {"occupancy", "hmma", "nbytes"}  # 4 points are under 5
    assert (ruled["nbytes"].verdict, ruled["nbytes"].severity) == ("better", "info")


def test_a_figure_of_another_version_or_environment_is_another_figure(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    commits = _commits(repo, 24)
    for night, commit in enumerate(commits):
        for python, seconds in (("3.10", 1.0), ("3.11", 2.0)):
            if python == "3.11" and night >= 14:
                continue  # the environment ends
            doubled = night >= 12  # by twice the work of a new version
            key = Key("suite.time_it", (), version="v2" if doubled else "v1")
            samples = (seconds * (1 + doubled) + 0.001 * (night % 3),)
            facts = {"env_name": f"virtualenv-py{python}", "python": python}
            date = f"2026-01-{night + 1:02}T00:00:00+00:00"
            run = Run("asv", commit, False, date, "box", facts, (Measurement(key, samples),))
            write(run, tmp_path / "store")
    loaded = series.load(tmp_path / "store", commits)
    assert sorted((f.environment, f.version) for f in loaded.figures) == [
        ("virtualenv-py3.10", "v1"),
        ("virtualenv-py3.10", "v2"),
        ("virtualenv-py3.11", "v1"),
        ("virtualenv-py3.11", "v2"),
    ]
    assert history.findings(loaded) == []
    assert any("2 figures begin anew" in note for note in history.about(loaded, Policy()))


def test_a_regression_of_an_older_version_does_not_last() -> None:
    values = np.full((30, 2), np.nan)
    values[:20, 0] = 5
    values[10:20, 0] = 6
    values[20:, 1] = 9
    (found,) = history.findings(
        _over(values, _figure("nbytes", "bytes", "1"), _figure("nbytes", "bytes", "2"))
    )
    assert (found.regression, found.lasting, found.superseded) == (True, False, True)
    assert found.verdict == "was worse, until the benchmark or its baseline changed"
