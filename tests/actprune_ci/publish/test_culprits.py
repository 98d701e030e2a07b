"""The night bisects what is new, within its budget, and names what it found."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from actprune_ci.cli import app
from actprune_ci.model.runs import Key
from actprune_ci.nightly import step
from actprune_ci.nightly.step import Ended
from actprune_ci.publish.culprits import Culprit, Culprits, load
from tests.actprune_ci.measure.test_ab import SUITE, Repository, git, work

FIGURE = Key("suite.track_work", (), "value", "bytes")


class Night:
    """A repository whose figure grows with the fourth of six commits, and its documents."""

    def __init__(self, folder: Path) -> None:
        self.repository, self.out = Repository(folder / "repository"), folder / "culprits.json"
        self.place = folder / "history.json"
        self.commits = [self.repository.commit(work(1000), SUITE)]
        self.commits += [self.repository.commit(work(1000 + 200 * (n >= 3))) for n in range(1, 6)]

    def found(self, good: int = 0, bad: int = 5, **more: Any) -> dict[str, Any]:
        about = {"name": str(FIGURE), "benchmark": FIGURE.benchmark, "params": {}}
        about |= {"metric": FIGURE.metric, "unit": FIGURE.unit, "machine": "box", "kind": "step"}
        level = {"before": 1000.0, "after": 1200.0, "effect": 0.2, "severity": "error"}
        where = f"{self.commits[good]}..{self.commits[bad]}"
        lasting = {"range": where, "regression": True, "lasting": True}
        return {**about, **level, **lasting, **more}

    def culprits(self, *found: dict[str, Any], budget: float = 600) -> Result:
        document = {"schema": 2, "branch": "main", "commits": self.commits, "figures": []}
        self.place.write_text(json.dumps({**document, "findings": list(found)}), "utf-8")
        words = ["culprits", "--history", str(self.place), "--machine", "box"]
        words += ["--repo", str(self.repository.folder), "--out", str(self.out)]
        return CliRunner().invoke(app(), [*words, "--budget", str(budget)])


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would be run; each ends without an outcome."""
    made: list[list[str]] = []

    def run(words: list[str], *_: object) -> Ended:
        made.append(words)
        return Ended(4, 1.0, "", "actprune-ci: no change from good to bad\n")

    monkeypatch.setattr(step, "run", run)
    return made


def test_the_commit_is_found_and_named(night: Night, tmp_path: Path) -> None:
    done = night.culprits(night.found())
    assert done.exit_code == 0, done.output
    (said,) = load(night.out).bisections
    assert said.suspects == [night.commits[3]], said
    assert done.stdout.startswith(f"suite.track_work: {night.commits[3][:10]}: +200 (+20.00%) in ")
    words = ["issues", "--history", str(night.place), "--culprits", str(night.out), "--dry-run"]
    done = CliRunner().invoke(app(), [*words, "--repo", str(night.repository.folder)])
    assert done.exit_code == 0, done.output


def test_only_what_is_new_and_ours_is_asked(night: Night, asked: list[list[str]]) -> None:
    one = night.found(2, 3)
    creep = night.found(kind="creep")
    other = night.found(machine="other")
    nobody = night.found(severity="info")
    assert night.culprits(one, creep, other, nobody).exit_code == 0
    assert asked == []
    done = night.culprits(night.found())
    assert len(asked) == 1
    words = asked[0]
    assert words[words.index("--benchmark") + 1] == r"^suite\.track_work$"
    assert words[4:6] == [night.commits[0], night.commits[5]]
    assert "no telling: actprune-ci: no change from good to bad" in done.stdout
    night.culprits(night.found())
    assert len(asked) == 1  # not again
    night.culprits(night.found(1, 5))
    assert len(asked) == 2  # but of another range
    night.culprits()
    assert load(night.out).bisections == []  # of no use any more


def test_a_cause_whose_commit_is_known_is_not_asked(night: Night, asked: list[list[str]]) -> None:
    known = Culprit(name=str(FIGURE), machine="box", good=night.commits[0], bad=night.commits[5])
    known.suspects = [night.commits[3]]
    night.out.write_text(Culprits(bisections=[known]).text, "utf-8")
    night.culprits(night.found(1, 5))
    assert asked == []
    night.culprits(night.found(3, 5))  # it lies outside
    assert len(asked) == 1


def test_a_budget_that_is_over_leaves_the_rest(night: Night, asked: list[list[str]]) -> None:
    done = night.culprits(night.found(), budget=10)
    assert asked == []
    assert done.stderr == "1 causes wait for another night (--budget)\n"


def test_what_the_budget_cuts_off_is_asked_again(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object) -> Ended:
        return Ended(130, 1.0, "ended after its time limit of 60 s", "")

    monkeypatch.setattr(step, "run", run)
    assert night.culprits(night.found()).exit_code == 0
    assert load(night.out).bisections == []


def test_bad_input(night: Night) -> None:
    words = ["culprits", "--machine", "box", "--out", str(night.out)]
    done = CliRunner().invoke(app(), words)
    assert "expected --gate, --history or both, got neither" in str(done.exception)
    assert git(night.repository.folder, "status", "--porcelain") == ""
