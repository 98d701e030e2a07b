"""Triage: what somebody decided is honoured by the gate and the history, and shown."""

import json
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

from actprune_ci.cli import app
from actprune_ci.model.runs import Key, Measurement, Pairs, Run
from actprune_ci.model.serialise import to_json
from actprune_ci.store.store import write
from actprune_ci.triage.entries import Entry, Triage
from actprune_ci.triage.order import Order
from actprune_ci.triage.write import append
from actprune_common.errors import InputError
from actprune_common.strict_yaml import load_yaml
from tests.actprune_ci.history.test_coverage import commits as commits_of
from tests.actprune_ci.history.test_coverage import git
from tests.actprune_ci.judge.test_gate import run as ab_run

NIGHTS, BAD = 30, 15
SAID: dict[str, Any] = {"reason": "r", "author": "A", "date": date(2026, 1, 1)}
BYTES = Key("suite.track_nbytes", (("spec", "bsr"),), "nbytes", "bytes")
TIME = Key("suite.time_it", (("size", "10"),))


class Branch:
    """A repository of 30 commits with their nights; both figures are worse from the 16th."""

    def __init__(self, folder: Path) -> None:
        self.repo, self.store = folder / "repo", folder / "store"
        self.repo.mkdir()
        git(self.repo, "init", "-q", "-b", "main")
        git(self.repo, "config", "user.name", "A. Author")
        git(self.repo, "config", "user.email", "a@b.c")
        self.commits = commits_of(self.repo, NIGHTS, "<b>Change</b> ")
        rng = np.random.default_rng(0)
        for night, commit in enumerate(self.commits):
            day = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(days=night)
            worse = 1.2 if night >= BAD else 1.0
            samples = 0.01 * worse * np.exp(rng.normal(0, 0.002, 3))
            figures = (
                Measurement(BYTES, (1000 * worse,)),
                Measurement(TIME, tuple(samples.tolist())),
            )
            facts = {"env_name": "e"}
            write(Run("asv", commit, False, day.isoformat(), "box", facts, figures), self.store)
        self.within(folder)

    def within(self, folder: Path) -> "Branch":
        """The same branch, its triage and documents in another folder."""
        self.folder, self.file = folder, folder / "triage.yml"
        return self

    @property
    def range(self) -> str:
        return f"{self.commits[BAD - 1]}..{self.commits[BAD]}"

    def history(self, *entries: dict[str, Any]) -> tuple[str, Any]:
        if entries:
            self.file.write_text(yaml.safe_dump({"entries": list(entries)}), "utf-8")
        words = ["history", str(self.store), "--repo", str(self.repo)]
        words += ["--triage", str(self.file)] if self.file.exists() else []
        out = self.folder / "history.json"
        done = CliRunner().invoke(app(), [*words, "--out", str(out)])
        assert done.exit_code == 0, done.output
        return done.stdout, json.loads(out.read_text("utf-8"))

    def ack(self, *words: str) -> Result:
        paths = ["--repo", str(self.repo), "--file", str(self.file)]
        return CliRunner().invoke(app(), ["ack", *words, *paths])


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Branch:
    return Branch(tmp_path_factory.mktemp("nights"))


@pytest.fixture
def branch(nights: Branch, tmp_path: Path) -> Branch:
    return nights.within(tmp_path)


def entry(**keys: Any) -> dict[str, Any]:
    return {"benchmark": "*", **SAID, **keys}


def settled(document: Any) -> dict[str, Any]:
    return {f["metric"]: f["acknowledged"] for f in document["findings"] if f["lasting"]}


def test_an_expected_change_is_shown_apart(branch: Branch) -> None:
    text, made = branch.history()
    assert settled(made) == {"nbytes": None, "time": None}
    said = entry(action="expected", change=branch.commits[BAD][:9], metric="nbytes")
    text, made = branch.history(said)
    told = {"action": "expected", "reason": "r", "author": "A", "date": "2026-01-01", "until": ""}
    assert settled(made) == {"time": None, "nbytes": told}
    worse = [line for line in text.splitlines() if "worse" in line]
    assert worse == [
        "worse: suite.time_it(size=10), time",
        "acknowledged, worse: suite.track_nbytes(spec=bsr), nbytes",
    ]
    assert "  expected: r (A, 2026-01-01)\n" in text
    assert "triage" not in text


@pytest.mark.parametrize(("of", "fits"), [(BAD - 1, False), (BAD, True), (BAD + 1, False)])
def test_only_the_change_it_is_about(branch: Branch, of: int, fits: bool) -> None:
    said = entry(action="expected", change=branch.commits[of], metric="nbytes")
    text, made = branch.history(said)
    assert (settled(made)["nbytes"] is not None) == fits
    assert ("fits no change any more, and can go" in text) != fits


def test_ranges_and_machines(branch: Branch) -> None:
    wide = f"{branch.commits[2]}..{branch.commits[20]}"
    assert None not in settled(branch.history(entry(action="expected", change=wide))[1]).values()
    before = f"{branch.commits[2]}..{branch.commits[BAD - 1]}"
    assert settled(branch.history(entry(action="expected", change=before))[1])["nbytes"] is None
    text, made = branch.history(entry(action="expected", change=wide, machine="other"))
    assert settled(made)["nbytes"] is None
    assert "fits no figure that was looked at" in text


def test_what_is_ignored_comes_back(branch: Branch) -> None:
    about = {"action": "ignore", "change": branch.range}
    _, made = branch.history(entry(**about, until=date(2999, 1, 1)))
    assert settled(made)["nbytes"]["until"] == "2999-01-01"
    text, made = branch.history(entry(**about, until=date(2026, 1, 2)))
    assert settled(made)["nbytes"] is None
    assert "is over since 2026-01-02; what it ignored counts again" in text
    _, made = branch.history(entry(**about, until="f" * 40))  # a commit that is still to come
    assert settled(made)["nbytes"] is not None
    _, made = branch.history(entry(**about, until=branch.commits[-1]))
    assert settled(made)["nbytes"] is None


def test_a_baseline_begins_a_series_anew(branch: Branch) -> None:
    since = branch.commits[BAD]
    text, made = branch.history(entry(action="baseline", since=since, metric="nbytes"))
    assert settled(made) == {"time": None}
    figures = [f for f in made["figures"] if f["metric"] == "nbytes"]
    assert [(f["since"], f["measured"]) for f in figures] == [("", BAD), (since, NIGHTS - BAD)]
    text, made = branch.history(entry(action="baseline", since="f" * 40))
    assert f"commit {'f' * 40} is none of this branch" in text
    assert settled(made)["nbytes"] is None


def test_order_of_commits() -> None:
    order = Order(["aaa1", "aaa2", "bbb", "ccc"])
    assert [order.place(name) for name in ("bbb", "b", "aaa", "d", "")] == [2, 2, None, None, None]
    assert order.overlap("bbb", "aaa2..ccc")
    assert not order.overlap("aaa2", "aaa2..ccc")
    assert not order.overlap("d", "aaa2..ccc")


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"action": "expected"}, "expected: expected change"),
        ({"action": "ignore", "change": "a" * 7}, "ignore: expected until"),
        ({"action": "ignore", "until": "a" * 7}, "expected either change or since"),
        ({"action": "baseline", "since": "a" * 7, "until": "a" * 7}, "expected no until"),
        ({"action": "baseline", "since": "abc"}, "expected 7 or more digits of a commit"),
        ({"action": "baseline", "since": 1234567}, "expected a commit in quotes"),
        ({"action": "expected", "change": "main"}, "expected 7 or more digits"),
        ({"action": "expected", "change": "a" * 7, "reason": ""}, "reason"),
        ({"action": "expected", "change": "a" * 7, "author": ""}, "author"),
        ({"action": "expected", "change": "a" * 7, "colour": "red"}, "colour: unknown key"),
        ({"action": "ignore", "change": "a" * 7, "until": "2026-13-01"}, "expected a date"),
        ({"action": "drop", "change": "a" * 7}, "action"),
    ],
)
def test_what_is_not_sound_is_refused(tmp_path: Path, said: dict[str, Any], problem: str) -> None:
    path = tmp_path / "triage.yml"
    path.write_text(yaml.safe_dump({"entries": [entry(**said)]}), "utf-8")
    with pytest.raises(InputError, match=problem):
        load_yaml(path, Triage)


def test_the_gate_does_not_close_over_what_is_expected(branch: Branch) -> None:
    base, head = branch.range.split("..")
    ab = branch.folder / "ab.json"
    other = replace(BYTES, params=(("spec", "csr"),))
    pairs = (Pairs(BYTES, (1000.0,), (1200.0,)), Pairs(other, (1.0,), (1.0,)))
    ab.write_text(to_json(ab_run(*pairs, base=base, head=head)), "utf-8")
    branch.file.write_text(
        yaml.safe_dump({"entries": [entry(action="expected", change=branch.range)]}), "utf-8"
    )
    out = branch.folder / "gate"
    words = ["gate", "--ab", str(ab), "--out", str(out)]
    assert CliRunner().invoke(app(), words).exit_code == 1
    done = CliRunner().invoke(app(), [*words, "--triage", str(branch.file)])
    assert done.exit_code == 0, done.output
    report = json.loads((out / "gate.json").read_text("utf-8"))
    (found,) = [f for f in report["findings"] if f["acknowledged"]]
    assert (found["outcome"], found["severity"], found["fails"]) == ("slower", "error", False)
    assert found["word"] == "worse, acknowledged"
    for name in ("gate.md", "gate.txt", "gate.html", "gate.json"):
        text = (out / name).read_text("utf-8")
        assert "acknowledged" in text, name
        assert "expected" in text, name
    # another commit's change is not this one
    branch.file.write_text(
        yaml.safe_dump({"entries": [entry(action="expected", change="f" * 40)]}), "utf-8"
    )
    done = CliRunner().invoke(app(), [*words, "--triage", str(branch.file)])
    assert done.exit_code == 1


@pytest.mark.parametrize(("of", "code"), [(9, 1), (10, 1), (BAD, 0), (20, 0), (21, 1)])
def test_a_commit_between_base_and_head_is_the_gate_s(branch: Branch, of: int, code: int) -> None:
    ab = branch.folder / "ab.json"
    pairs = (Pairs(BYTES, (1000.0,), (1200.0,)),)
    run = ab_run(*pairs, base=branch.commits[10], head=branch.commits[20])
    ab.write_text(to_json(run), "utf-8")
    words = ["gate", "--ab", str(ab), "--repo", str(branch.repo), "--triage", str(branch.file)]
    commit = branch.commits[of]
    for about in (
        {"action": "expected", "change": commit},
        {"action": "baseline", "since": commit},
    ):
        branch.file.write_text(yaml.safe_dump({"entries": [entry(**about)]}), "utf-8")
        assert CliRunner().invoke(app(), words).exit_code == code


def test_budgets_are_the_policy_s(branch: Branch) -> None:
    ab, policy = branch.folder / "ab.json", branch.folder / "policy.yml"
    run = ab_run(Pairs(BYTES, (10.0,), (10.0,)), base=branch.commits[10], head=branch.commits[20])
    ab.write_text(to_json(run), "utf-8")
    policy.write_text("budgets: [{metric: nbytes, bound: '<= 5'}]\n", "utf-8")
    said = entry(action="expected", change=branch.commits[BAD])
    branch.file.write_text(yaml.safe_dump({"entries": [said]}), "utf-8")
    words = ["gate", "--ab", str(ab), "--repo", str(branch.repo), "--triage", str(branch.file)]
    assert CliRunner().invoke(app(), [*words, "--policy", str(policy)]).exit_code == 1


def test_ack_writes_what_history_then_honours(branch: Branch) -> None:
    branch.history()
    history = ["--history", str(branch.folder / "history.json")]
    said = ["--reason", 'twice as "exact": #1', *history]
    done = branch.ack("expected", "--benchmark", "*track_nbytes", *said)
    assert done.exit_code == 0, done.output
    (made,) = load_yaml(branch.file, Triage).entries
    assert (made.change, made.author) == (branch.range, "A. Author <a@b.c>")
    assert made.reason == 'twice as "exact": #1'
    assert settled(branch.history()[1])["nbytes"]["action"] == "expected"
    for benchmark in ("nothing", "*track_nbyte"):
        done = branch.ack("expected", "--benchmark", benchmark, *said)
        assert isinstance(done.exception, InputError)
    change = ["--change", branch.commits[3]]
    done = branch.ack("expected", "--benchmark", "*", *change, *said)
    assert "selects nothing in" in str(done.exception)
    done = branch.ack("baseline", "--benchmark", "*", "--since", branch.commits[BAD], *said)
    assert done.exit_code == 0, done.output
    assert settled(branch.history()[1]) == {}
    done = branch.ack("ignore", "--benchmark", "*", "--until", "2999-01-01", *said)
    assert "fits 0" in str(done.exception)  # nothing is left to be ignored


def test_ack_takes_what_the_gate_closed_over(branch: Branch) -> None:
    ab, out = branch.folder / "ab.json", branch.folder / "gate"
    base, head = branch.commits[BAD - 1], branch.commits[BAD]
    pairs = (Pairs(BYTES, (1000.0,), (1200.0,)), Pairs(TIME, (1.0,), (), "skipped", "vanished"))
    ab.write_text(to_json(ab_run(*pairs, base=base, head=head)), "utf-8")
    words = ["gate", "--ab", str(ab), "--repo", str(branch.repo), "--triage", str(branch.file)]
    (branch.folder / "policy.yml").write_text("", "utf-8")
    words += ["--policy", str(branch.folder / "policy.yml")]
    branch.file.write_text("entries: []\n", "utf-8")
    assert CliRunner().invoke(app(), [*words, "--out", str(out)]).exit_code == 1
    branch.file.unlink()
    said = ["--gate", str(out / "gate.json"), "--reason", "r", "--author", "B"]
    done = branch.ack("expected", "--benchmark", "*track_nbytes", "--param", "spec=dense", *said)
    assert "fits 0" in str(done.exception)
    done = branch.ack("expected", "--benchmark", "*track_nbytes", "--param", "spec=b*", *said)
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(app(), words).exit_code == 1  # the other one vanished
    about = ["--benchmark", "*time_it", "--until"]
    done = branch.ack("ignore", *about, "2999-01-01", "--since", "HEAD~2", *said)
    assert "selects nothing" in str(done.exception)  # that is later than head
    for over in ("HEAD~29", "2026-01-01"):
        done = branch.ack("ignore", *about, over, "--since", "HEAD~28", *said)
        assert "--until: expected what is still to come" in str(done.exception)
    done = branch.ack("ignore", *about, "HEAD~1", "--since", "HEAD~28", *said)
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(app(), words).exit_code == 0
    text = branch.file.read_text("utf-8")
    assert branch.commits[-2] in text
    branch.file.write_text(text.replace(branch.commits[-2], branch.commits[1]), "utf-8")
    assert CliRunner().invoke(app(), words).exit_code == 1  # its end came long ago
    assert branch.ack("expected", "--benchmark", "*", "--reason", "r").exit_code == 1
    done = branch.ack("forget", "--benchmark", "*", *said)
    assert "action: expected 'expected', 'ignore' or 'baseline'" in str(done.exception)


def test_ack_keeps_the_file_as_it_is(tmp_path: Path) -> None:
    path, made = tmp_path / "triage.yml", Entry(**entry(action="expected", change="a" * 7))
    append(path, made)
    append(path, made)
    before = path.read_text("utf-8")
    assert before.startswith("# What was decided")
    text = before.replace("entries:\n", "entries:\n  # a comment\n\n") + "  # the end"
    path.write_text(text, "utf-8")
    append(path, made)
    assert path.read_text("utf-8").startswith(text)
    assert load_yaml(path, Triage).entries == (made,) * 3
    for begin in ("# only a comment\n", "entries:\n", "entries: \n", ""):
        path.write_text(begin, "utf-8")
        append(path, made)
        assert path.read_text("utf-8").startswith(begin.rstrip())
    flat = "entries:\n" + "\n".join(line[2:] for line in before.splitlines()[3:]) + "\n"
    path.write_text(flat, "utf-8")
    append(path, made)
    assert load_yaml(path, Triage).entries == (made,) * 3
    path.write_text("entries: []\n", "utf-8")
    with pytest.raises(InputError, match="expected a list of entries, one under the other"):
        append(path, made)
    assert path.read_text("utf-8") == "entries: []\n"


def test_hashes_that_yaml_takes_for_numbers(tmp_path: Path) -> None:
    path = tmp_path / "triage.yml"
    for name in ("1234567", "12e4567", "0123456"):
        append(path, Entry(**entry(action="expected", change=name)))
    assert [e.change for e in load_yaml(path, Triage).entries] == ["1234567", "12e4567", "0123456"]
