"""Bisection: its logic over all positions, and end to end on a repository of 64 commits."""

import json
from collections.abc import Sequence
from math import ceil, log, log2
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from actprune_ci.cli import app
from actprune_ci.judge.statistics import log_ratios
from actprune_ci.measure import bisect, sequential
from actprune_ci.measure.bisect import Reply, answered, next_probe, search, suspects
from actprune_ci.measure.pairing import Limits, PairedFigure
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


class Noisy:
    """Answers of a figure that doubles at a commit, inconclusive or unbuildable as it is told."""

    limits, repeats, key = Limits(most=12), 3, key("suite.time_it", ())

    def __init__(self, first: int, doubts: Sequence[bool]) -> None:
        self.first, self.doubts = first, list(doubts)

    def measured(self, base: str, head: str, threshold: float | None = None) -> PairedFigure:
        figure = PairedFigure(self.key, {"kind": "time", "deterministic": False}, ())
        ratio = 2.0 if int(head) >= self.first > int(base) else 1.0
        doubt = self.doubts.pop(0) if self.doubts else False
        spread = 4.0 if doubt else 1.001
        figure.base = [1.0] * 12
        figure.head = [ratio * spread ** (1 if i % 2 else -1) for i in range(12)]
        return figure


@given(st.integers(0, 63), st.lists(st.booleans(), max_size=40))
def test_doubts_are_asked_again_and_never_mislead(first: int, doubts: list[bool]) -> None:
    question = Noisy(first, doubts)

    def ask(i: int) -> Reply:
        return answered(question, "-1", str(i), log(2)).answer  # type: ignore[arg-type]

    found = search(64, ask)
    assert first in found
    thrice = any(all(doubts[i : i + 3]) for i in range(len(doubts) - 2))
    assert len(found) == 1 or thrice


def test_an_answer_needs_half_of_the_change_beyond_doubt() -> None:
    figure = PairedFigure(key("time_it", ()), {"kind": "time", "deterministic": False}, ())
    figure.base, figure.head = [1.0] * 12, [1.03 + i * 7 % 12 / 1000 for i in range(12)]
    limits = Limits()
    assert bisect.beyond(figure, log(1.02), limits) == 1
    assert bisect.beyond(figure, log(1.05), limits) == -1
    assert bisect.beyond(figure, log(1.035), limits) == 0
    assert sequential.beside(log_ratios(figure.base, figure.head), 0.0, 1) == 1
    figure.base[0] = 0.0
    assert bisect.beyond(figure, log(1.02), limits) == 0


@pytest.mark.parametrize(("head", "side"), [(9.0, 1), (2.0, -1)])
def test_a_deterministic_figure_may_be_zero(head: float, side: int) -> None:
    figure = PairedFigure(key("track_it", ()), {"kind": "track", "deterministic": False}, ())
    figure.base, figure.head = [0.0, 0.0], [head, head]
    assert bisect.change(figure) == head
    assert bisect.beyond(figure, 5.0, Limits()) == side


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
    assert document["confirmed"] == "+0.10% in 2 pairs"
    assert {s["commit"]: s["answer"] for s in document["steps"]}[commits[31]] == "skip"
    assert len(document["steps"]) <= 8
    assert f"the change came with\n  {commits[41][:7]}" in done.output
    assert repository.worktrees() == 1


def test_commits_that_cannot_be_told_apart_are_all_named(repository: Repository) -> None:
    good = repository.commit(work(1), SUITE)
    broken = repository.commit(work(2), project="[build-system]\n")
    bad = repository.commit(work(2))
    done = run(repository, good, bad, "--benchmark", "track_work")
    assert done.exit_code == 4, done.output
    assert "the change came with one of" in done.output
    for commit in (broken, bad):
        assert f"  {commit[:7]}" in done.output


def test_without_a_change_there_is_nothing_to_find(repository: Repository) -> None:
    good = repository.commit(work(1), SUITE)
    bad = repository.commit(work(1) + "# more\n")
    done = run(repository, good, bad, "--benchmark", "track_work")
    assert done.exit_code == 4
    assert "suite.track_work: no change from good to bad: +0.00% in 2 pairs" in done.output


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
