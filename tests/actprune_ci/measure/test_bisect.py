"""Bisection: its logic over all positions, and end to end on a repository of 64 commits."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import ceil, log, log2
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from actprune_ci.cli import app
from actprune_ci.measure import bisect
from actprune_ci.measure.bisect import OpenError, Reply, answered, next_probe, search, suspects
from actprune_ci.measure.compared import Compared
from actprune_ci.measure.pairing import Limits, PairedFigure
from actprune_ci.model.metrics import Scale
from actprune_ci.readers.asv import key
from actprune_common.errors import InputError
from tests.actprune_ci.measure.test_ab import SUITE, Repository, git, work

COUNTS = st.integers(1, 200)


@given(COUNTS, st.data())
def test_any_first_bad_is_found_in_few_questions(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, count - 1))
    asked: list[int] = []

    def ask(i: int) -> Reply:
        asked.append(i)
        return "bad" if i >= first else "good"

    assert list(search(count, ask)) == [first]
    assert len(asked) <= ceil(log2(count + 1))
    assert len(set(asked)) == len(asked)


@given(COUNTS, st.data())
def test_skipped_commits_widen_the_answer_no_more_than_they_must(
    count: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, count - 1))
    broken = data.draw(st.sets(st.integers(0, count - 1)))

    def ask(i: int) -> Reply:
        return "skip" if i in broken else "bad" if i >= first else "good"

    found = search(count, ask)
    assert first in found
    good = max((i for i in range(first) if i not in broken), default=-1)
    bad = min((i for i in range(first, count - 1) if i not in broken), default=count - 1)
    assert found == range(good + 1, bad + 1)


@given(COUNTS, st.dictionaries(st.integers(0, 199), st.sampled_from(["good", "bad", "skip"])))
def test_a_probe_narrows_the_answer(count: int, answers: dict[int, Reply]) -> None:
    last_good = max((i for i, a in answers.items() if a == "good"), default=-1)
    known = {i: a for i, a in answers.items() if i < count and (a != "bad" or i > last_good)}
    probe = next_probe(known, count)
    if probe is None:
        return
    assert probe not in known
    for answer in ("good", "bad"):
        assert len(suspects({**known, probe: answer}, count)) < len(suspects(known, count))


class FakeServer:
    """A side whose figure is drawn: `level` of its commit, times or plus what `noise` draws."""

    levels: ClassVar[Mapping[str, float]] = {}
    noise: ClassVar[Callable[[], float]] = float
    scale: ClassVar[str] = "ratio"

    def __init__(self, side: str, *_: object) -> None:
        self.side, self.worn = side, False

    def begin(self, *_: object) -> Callable[[], dict[str, object]]:
        level, noise = self.levels[self.side], type(self).noise()
        value = level * np.exp(noise) if self.scale == "ratio" else level + noise
        return lambda: {"status": "ok", "value": value}

    def close(self) -> None:
        pass


class FakeCheckouts:
    """Commits that need no building: a side is its commit's name."""

    python, repo = "", Path()

    def side(self, commit: str) -> str:
        return commit

    def drop(self, commit: str) -> None:
        pass


Play = Callable[..., bisect.Bisection]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Bisect commits "0" (good), "1", ... of given levels, by everything but the processes."""

    def played(
        levels: Sequence[float],
        noise: Callable[[], float] = lambda: 0.0,
        scale: str = "ratio",
        limits: Limits = LIMITS,
    ) -> bisect.Bisection:
        names = [str(i) for i in range(len(levels))]
        monkeypatch.setattr(FakeServer, "levels", dict(zip(names, levels, strict=True)))
        monkeypatch.setattr(FakeServer, "noise", staticmethod(noise))
        monkeypatch.setattr(FakeServer, "scale", scale)
        monkeypatch.setattr(bisect, "Server", FakeServer)
        monkeypatch.setattr(bisect, "between", lambda *_: names[1:])
        figure = PairedFigure(key("track_it", ()), {"kind": "track", "deterministic": False}, ())
        question = bisect.Question(FakeCheckouts(), Path(), figure, limits)  # type: ignore[arg-type]
        return bisect.bisect(question, names[0], names[-1])

    return played


LIMITS = Limits(budget=1e9)


@pytest.mark.parametrize(
    ("ratio", "spread", "fewest", "most"),
    [
        (3.0, 0.02, 297, 300),
        (1.0971, 0.03, 285, 300),
        (0.9, 0.05, 285, 300),
        (1.0, 0.02, 0, 4),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                (3.0, 0.2, 297, 300),
                (1 / 3, 0.02, 297, 300),
                (1 / 3, 0.2, 297, 300),
                (1.1, 0.05, 285, 300),
                (1.0, 0.001, 0, 4),
                (1.0, 0.2, 0, 4),
            )
        ),
    ],
)
def test_a_clear_change_is_found_and_none_is_not(
    play: Play, ratio: float, spread: float, fewest: int, most: int
) -> None:
    """Of 300 simulated series each, of normal and of heavy-tailed noise by turns."""
    random, found = np.random.default_rng(16), 0
    for trial in range(300):
        draw = random.standard_normal if trial % 2 else partial(random.standard_t, 3)
        with suppress(OpenError):
            done = play([7.0, 7.0 * ratio], lambda draw=draw: float(spread * draw()))
            assert done.suspects == ("1",)
            found += 1
    assert fewest <= found <= most


@pytest.mark.parametrize("ratio", [3.0, 1.1, 0.9, 1 / 3])
def test_the_commit_among_many_is_found_in_noise(play: Play, ratio: float) -> None:
    """Whichever it is, where figures rise and where they fall."""
    random, wrong, several = np.random.default_rng(3), 0, 0
    for first in range(1, 33):
        levels = [5.0 * (ratio if i >= first else 1.0) for i in range(33)]
        found = play(levels, lambda: float(0.03 * random.standard_normal()))
        wrong += str(first) not in found.suspects
        several += len(found.suspects) > 1
        assert found.scale == "ratio"
    assert wrong == 0
    assert several <= 1


@pytest.mark.parametrize("step", [2.0, -2.0])
@pytest.mark.parametrize("start", [0.0, -1.0, 5.0])
def test_figures_around_zero_are_compared_by_their_differences(
    play: Play, start: float, step: float
) -> None:
    random = np.random.default_rng(8)
    levels = [start + (step if i >= 6 else 0.0) for i in range(12)]
    found = play(levels, lambda: float(0.2 * random.standard_normal()), "difference")
    assert found.suspects == ("6",)
    if start <= 0 or start + step <= 0:
        assert found.scale == "difference"
        assert found.change == pytest.approx(step, rel=0.2)


@pytest.mark.parametrize(
    ("levels", "suspect"),
    [
        ([5, 5, 5, 0, 0], "3"),
        ([0, 0, 9, 9, 9], "2"),
        ([5, 1, 1, 0, 0], "1"),  # the larger step, whatever the scale of either
        ([0, 1, 1, 5, 5], "3"),
        ([100, 101, 102, 103, 104], "3"),  # each step is less than half
        ([104, 103, 102, 101, 100], "3"),
        ([1, 1, 2, 3, 3], "3"),  # half of the change is good, rising
        ([3, 3, 2, 1, 1], "3"),  # and falling
        ([-3, -3, -1, -1, -1], "2"),
        ([1, 1, 7, 1, 2], "2"),
    ],
)
def test_exact_figures_of_any_sign_and_direction(
    play: Play, levels: list[float], suspect: str
) -> None:
    found = play(levels)
    assert found.suspects == (suspect,)
    assert (found.scale, found.change) == ("difference", levels[-1] - levels[0])


def test_a_commit_at_half_of_the_change_costs_no_wrong_answer(play: Play) -> None:
    random = np.random.default_rng(4)
    for levels in ([1, 1, 2, 4, 4], [4, 4, 2, 1, 1]):  # half, as ratios are
        found = play(levels, lambda: float(0.02 * random.standard_normal()))
        assert set(found.suspects) & {"2", "3"}
        assert set(found.suspects) <= {"2", "3"}


def test_a_commit_whose_figure_has_no_ratio_is_skipped(play: Play) -> None:
    random = np.random.default_rng(4)
    found = play([5, 5, -5, 8, 8], lambda: float(0.01 * random.standard_normal()))
    assert found.suspects == ("2", "3")
    (skipped,) = [step for step in found.steps if step.answer == "skip"]
    assert skipped.detail.startswith("expected figures above 0, as good and bad have, got -5.")


def test_too_few_pairs_are_named(play: Play) -> None:
    random = np.random.default_rng(4)
    with pytest.raises(OpenError, match=r"is sure: \+.*% in 8 pairs, too few to be sure$"):
        play([1, 3], lambda: float(0.01 * random.standard_normal()), limits=Limits(1e9, 4, 8))


def test_a_doubt_tells_where_the_change_lies(play: Play) -> None:
    random = np.random.default_rng(4)
    told = r"no change from good to bad is sure: \S+% in 60 pairs, surely -\S+% to \+\S+%$"
    with pytest.raises(OpenError, match=told):
        play([1, 1], lambda: float(0.01 * random.standard_normal()))


class Doubtful:
    """Answers of a figure that doubles at a commit, in doubt as it is told."""

    limits, repeats, key = Limits(most=12), 3, key("suite.time_it", ())

    def __init__(self, first: int, doubts: Sequence[bool]) -> None:
        self.first, self.doubts = first, list(doubts)

    def measured(self, base: str, head: str, _: object, scale: Scale, error: float) -> Compared:
        figure = PairedFigure(self.key, {"kind": "time", "deterministic": False}, ())
        ratio = 2.0 if int(head) >= self.first > int(base) else 1.0
        doubt = self.doubts.pop(0) if self.doubts else False
        spread = 4.0 if doubt else 1.001
        figure.base = [1.0] * 20
        figure.head = [ratio * spread ** (1 if i % 2 else -1) for i in range(20)]
        return Compared(figure, Limits(most=20), error, scale)


@given(st.integers(0, 63), st.lists(st.booleans(), max_size=40))
def test_doubts_are_asked_again_and_never_mislead(first: int, doubts: list[bool]) -> None:
    question = Doubtful(first, doubts)

    def ask(i: int) -> Reply:
        return answered(question, "-1", str(i), log(2) / 2, "ratio").answer  # type: ignore[arg-type]

    found = search(64, ask)
    assert first in found
    thrice = any(all(doubts[i : i + 3]) for i in range(len(doubts) - 2))
    assert len(found) == 1 or thrice


def test_an_answer_lies_beyond_doubt_on_one_side() -> None:
    figure = PairedFigure(key("time_it", ()), {"kind": "time", "deterministic": False}, ())
    figure.base, figure.head = [1.0] * 12, [1.03 + i * 7 % 12 / 1000 for i in range(12)]
    seen = Compared(figure, Limits(), 0.01, "ratio")
    assert [seen.side(log(x)) for x in (1.02, 1.035, 1.05)] == [1, 0, -1]
    assert seen.plain
    assert log(1.029) < seen.least <= log(1.03)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def run(repository: Repository, *words: str) -> Result:
    return CliRunner().invoke(app(), ["bisect", *words, "--repo", str(repository.folder)])


def test_the_commit_among_64_is_found(repository: Repository, tmp_path: Path) -> None:
    good = repository.commit(work(1000), SUITE)
    commits = []
    for i in range(64):
        code = work(1001 if i >= 41 else 1000) + f"# {i}\n"
        if i in (31, 47):  # two of those that are asked about
            commits.append(repository.commit(code, project="[build-system]\n"))
        else:
            commits.append(repository.commit(code))
    out = tmp_path / "bisect.json"
    done = run(repository, good, "HEAD", "--benchmark", "track_work", "--out", str(out))
    assert done.exit_code == 0, done.output
    document = json.loads(out.read_text("utf-8"))
    assert document["suspects"] == [commits[41]]
    assert document["confirmed"] == "+1 (+0.10%) in 2 pairs"
    assert {s["commit"]: s["answer"] for s in document["steps"]}[commits[31]] == "skip"
    assert len(document["steps"]) <= 8
    assert f"the change (+1 (+0.10%) in 2 pairs) came with\n  {commits[41][:7]}" in done.output
    assert repository.worktrees() == 1


def test_commits_that_cannot_be_told_apart_are_all_named(repository: Repository) -> None:
    good = repository.commit(work(1), SUITE)
    broken = repository.commit(work(2), project="[build-system]\n")
    bad = repository.commit(work(2))
    done = run(repository, good, bad, "--benchmark", "track_work")
    assert done.exit_code == 4, done.output
    assert "the change (+1 (+100.00%) in 2 pairs) came with one of" in done.output
    for commit in (broken, bad):
        assert f"  {commit[:7]}" in done.output


def test_without_a_change_there_is_nothing_to_find(repository: Repository) -> None:
    good = repository.commit(work(1), SUITE)
    bad = repository.commit(work(1) + "# more\n")
    done = run(repository, good, bad, "--benchmark", "track_work")
    assert done.exit_code == 4
    assert (
        "suite.track_work: no change from good to bad is sure: +0 (+0.00%) in 2 pairs"
        in done.output
    )


def test_a_bad_commit_that_does_not_build_is_no_data(repository: Repository) -> None:
    good = repository.commit(work(1), SUITE)
    bad = repository.commit(work(1), project="[build-system]\n")
    done = run(repository, good, bad, "--benchmark", "track_work")
    assert done.exit_code == 3
    assert f"{bad[:12]}: does not build" in done.output


def test_bad_questions_are_named(repository: Repository) -> None:
    good = repository.commit(work(1), SUITE + "def track_worker():\n    return 1\n")
    bad = repository.commit(work(2))
    for words, message in (
        (
            (good, bad, "--benchmark", "track_"),
            "--benchmark: expected one that 'track_' fits, got 2",
        ),
        ((good, bad, "--benchmark", "no"), "--benchmark: expected one that 'no' fits, got 0"),
        ((bad, good, "--benchmark", "work$"), "is no ancestor of"),
    ):
        done = run(repository, *words)
        assert isinstance(done.exception, InputError)
        assert message in str(done.exception)
    assert git(repository.folder, "status", "--porcelain") == ""
