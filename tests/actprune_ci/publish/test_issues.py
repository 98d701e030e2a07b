"""Issues and comments on GitHub, against a `gh` that keeps its state in a file."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from actprune_ci.cli import app
from actprune_ci.judge.gate import gate
from actprune_ci.judge.policy import Policy
from actprune_ci.model.runs import AbRun, Key, Pairs
from actprune_ci.publish import github
from actprune_ci.publish.commits import forge, link
from actprune_ci.publish.marks import Kept, Mark, mark, marked
from actprune_ci.publish.reports import json as gate_json
from actprune_common.errors import InputError
from tests.actprune_ci.history.test_coverage import git
from tests.actprune_ci.judge.test_gate import run

SIZE = Key("suite.Kernels.track_saved_bytes", (("spec", "bsr"),), "saved_bytes", "bytes")
OTHER = Key("suite.Kernels.track_saved_bytes", (("spec", "csr"),), "saved_bytes", "bytes")
TIME = Key("suite.Kernels.time_it", (), "time", "s")
COMMITS = 16
Document = dict[str, Any]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("issues") / "repo"
    made.mkdir()
    git(made, "init", "-q", "-b", "main")
    for number in range(COMMITS):
        day = f"2026-11-{number + 1:02}T12:00:00+00:00"
        environment = {**os.environ, "GIT_AUTHOR_DATE": day, "GIT_COMMITTER_DATE": day}
        who = ("-c", "user.name=A. @uthor", "-c", "user.email=a@b.c")
        words = ("commit", "-q", "--allow-empty", "-m", f"Change {number} <b> `x`")
        subprocess.run(["git", *who, "-C", str(made), *words], check=True, env=environment)
    git(made, "remote", "add", "origin", "https://user:secret@github.com/someone/thing.git")
    return made


class GitHub:
    """The state that the fake gh keeps, and the files that the commands read."""

    def __init__(self, folder: Path, repo: Path) -> None:
        self.folder, self.repo, self.place = folder, repo, folder / "github.json"
        self.commits = git(repo, "rev-list", "--reverse", "main").split()
        self.state = {"issues": [], "labels": [], "pulls": {}, "calls": []}

    @property
    def state(self) -> Any:
        return json.loads(self.place.read_text("utf-8"))

    @state.setter
    def state(self, state: Document) -> None:
        self.place.write_text(json.dumps(state), "utf-8")

    def issues(
        self, gate: Document | None = None, history: Document | None = None, *more: str
    ) -> Result:
        words = ["issues", "--repo", str(self.repo), *more]
        for name, document in {"gate": gate, "history": history}.items():
            if document is not None:
                path = self.folder / f"{name}.json"
                path.write_text(json.dumps(document), "utf-8")
                words += [f"--{name}", str(path)]
        return CliRunner().invoke(app(), words)

    def only(self) -> Any:
        (issue,) = self.state["issues"]
        return issue

    def close_by_hand(self) -> None:
        state = self.state
        state["issues"][0]["state"] = "CLOSED"
        self.state = state

    def judged(self, *pairs: Pairs, of: tuple[int, int] = (1, 2)) -> Document:
        """gate.json, as the gate writes it; `of`: base and head, by their numbers."""
        base, head = (self.commits[number] for number in of)
        made: AbRun = run(*pairs, base=base, head=head)
        document: Document = json.loads(gate_json.render(gate(Policy(), [made])))
        return document

    def grown(self, size: float, of: tuple[int, int] = (1, 2), before: float = 100) -> Document:
        return self.judged(Pairs(SIZE, (before,), (size,)), of=of)

    def history(
        self,
        found: Sequence[Document] = (),
        values: Mapping[Key, float] | None = None,
        newest: int = 10,
        **more: Any,
    ) -> Document:
        """history.json: `values` at the commit `newest` of figures that were looked at."""
        figures = [
            {**facts(key), "newest": self.commits[newest], "value": value, "measured": newest}
            for key, value in (values or {}).items()
        ]
        document = {"schema": 2, "branch": "main", "commits": self.commits, "notes": []}
        return {**document, "figures": figures, "findings": list(found), **more}

    def changed(
        self, effect: float, of: tuple[int, int] = (1, 3), key: Key = SIZE, **more: Any
    ) -> Document:
        good, bad = (self.commits[number] for number in of)
        level = {"before": 100.0, "after": 100 * (1 + effect), "effect": effect}
        said = {"kind": "step", "range": f"{good}..{bad}", "regression": True, "lasting": True}
        about = {"severity": "error", "trace": [100, 100, 120], "threshold": 103.0}
        return {**facts(key), **level, **said, **about, **more}


def facts(key: Key, machine: str = "box") -> Document:
    figure = {"name": str(key), "benchmark": key.benchmark, "params": dict(key.params)}
    return {**figure, "metric": key.metric, "unit": key.unit, "machine": machine}


@pytest.fixture
def hub(tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch) -> GitHub:
    program = tmp_path / "bin/gh"
    program.parent.mkdir()
    source = Path(__file__).with_name("fake_gh.py")
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {source} "$@"\n', "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    made = GitHub(tmp_path, repo)
    monkeypatch.setenv("FAKE_GH", str(made.place))
    return made


NOTHING = "nothing to be done\n"


def test_a_cause_has_one_issue(hub: GitHub) -> None:
    both = hub.judged(Pairs(SIZE, (100.0,), (120.0,)), Pairs(OTHER, (10.0,), (15.0,)))
    done = hub.issues(both)
    assert done.exit_code == 0, done.output
    title = "worse: suite.Kernels.track_saved_bytes(spec=csr), saved_bytes and 1 more"
    assert done.stdout == f"create: {title}\n"
    issue = hub.only()
    assert (issue["title"], issue["state"], issue["comments"]) == (title, "OPEN", [])
    assert issue["labels"] == [github.LABEL]
    text = issue["body"]
    commit = hub.commits[2]
    link = f"[{commit[:10]}](https://github.com/someone/thing/commit/{commit})"
    lead = f"**2 figures are worse since 2026-11-03**, by {link} Change 2 \\<b\\> \\`x\\` (A. @"
    assert lead in text.replace("\u200b", "")
    assert "secret" not in text
    assert "| +20 % | 100 → 120 bytes |" in text
    assert f"actprune-ci ab {hub.commits[1]} {commit} --benchmarks" in text
    assert "bisect" not in text  # there is one commit
    assert hub.issues(both).stdout == NOTHING
    assert hub.only() == issue


def test_a_range_of_several_commits_lists_them_and_says_how_to_bisect(hub: GitHub) -> None:
    hub.issues(None, hub.history([hub.changed(0.2, (1, 14))], {SIZE: 120}))
    text = hub.only()["body"]
    assert "by one of the 13 commits [" in text
    assert "https://github.com/someone/thing/compare/" in text
    assert text.count("\n- [") == 10
    assert "\n- and 3 more\n" in text
    words = f"actprune-ci bisect {hub.commits[1]} {hub.commits[14]} --benchmark"
    assert words in text
    assert "| 103 bytes | ▁▁█ |" in text  # the threshold, and the newest values


def test_it_stays_open_while_the_gate_only_sees_no_more_change(hub: GitHub) -> None:
    hub.issues(hub.grown(120))
    assert hub.issues(hub.grown(120, (2, 3), 120)).stdout == NOTHING
    assert hub.issues(hub.judged(of=(3, 4))).stdout == NOTHING
    assert hub.only()["state"] == "OPEN"


def test_it_is_closed_when_the_gate_shows_the_way_back(hub: GitHub) -> None:
    hub.issues(hub.grown(120))
    assert hub.issues(hub.grown(118, (2, 3), 120)).stdout == NOTHING
    done = hub.issues(hub.grown(100, (3, 4), 118))
    assert done.stdout.startswith("close 1: Gone: suite.Kernels.track")
    assert "better in " in done.stdout
    issue = hub.only()
    assert (issue["state"], len(issue["comments"])) == ("CLOSED", 1)
    assert marked(issue["body"]) is not None
    assert hub.issues(hub.grown(100, (3, 4), 118)).stdout == NOTHING
    hub.issues(hub.grown(150, (4, 5), 100))  # by another commit: another cause
    assert [each["state"] for each in hub.state["issues"]] == ["CLOSED", "OPEN"]


def test_another_commit_s_change_is_another_issue(hub: GitHub) -> None:
    hub.issues(hub.grown(120))
    hub.issues(hub.grown(144, (2, 3), 120))
    assert len(hub.state["issues"]) == 2
    assert [each["comments"] for each in hub.state["issues"]] == [[], []]


def test_the_same_issue_while_the_range_narrows_and_figures_come_and_go(hub: GitHub) -> None:
    hub.issues(hub.grown(120, (1, 8)))
    nothing = hub.judged(of=(8, 9))
    hub.issues(nothing, hub.history([hub.changed(0.2, (2, 6))], {SIZE: 120}))
    assert f"{hub.commits[2][:10]}..{hub.commits[6][:10]}" in hub.only()["body"]
    assert hub.only()["comments"] == []  # narrower is nothing that needs a word
    more = [hub.changed(0.2, (3, 6)), hub.changed(0.5, (4, 5), OTHER)]
    looked = {SIZE: 120.0, OTHER: 150.0}
    hub.issues(nothing, hub.history(more, looked))
    issue = hub.only()
    assert issue["comments"][0].startswith("**another figure; the commit is known**\n")
    assert "since 2026-11-06**, by [" in issue["body"]
    assert hub.issues(nothing, hub.history(more, looked)).stdout == NOTHING
    assert hub.issues(None, hub.history(more[::-1], looked)).stdout == NOTHING
    # the other one was not looked at, and is not forgotten
    assert hub.issues(None, hub.history(more[1:], {OTHER: 150.0})).stdout == NOTHING
    worse = [hub.changed(0.9, (4, 5), OTHER)]
    hub.issues(None, hub.history(worse, {OTHER: 190.0}))
    assert hub.only()["comments"][1].startswith("**another effect**")
    assert "Not told tonight, and not measured to be good: suite" in hub.only()["body"]
    hub.issues(None, hub.history([], {OTHER: 100.0}))
    assert hub.only()["state"] == "OPEN"
    hub.issues(None, hub.history([], {OTHER: 100.0, SIZE: 100.0}))
    assert hub.only()["state"] == "CLOSED"


@pytest.mark.parametrize(
    ("of", "over", "issues"), [((6, 7), False, 1), ((6, 7), True, 2), ((14, 15), False, 2)]
)
def test_an_estimate_that_moves_a_little_is_the_same_cause(
    hub: GitHub, of: tuple[int, int], over: bool, issues: int
) -> None:
    hub.issues(None, hub.history([hub.changed(0.2, (1, 2))], {SIZE: 120}))
    if over:
        hub.issues(None, hub.history([], {SIZE: 100}))
        assert hub.only()["state"] == "CLOSED"
    hub.issues(None, hub.history([hub.changed(0.2, of)], {SIZE: 120}))
    assert len(hub.state["issues"]) == issues


def test_only_what_was_measured_again_and_is_good_closes(hub: GitHub) -> None:
    pair = [hub.changed(0.2, (1, 3)), hub.changed(0.5, (1, 3), OTHER)]
    hub.issues(None, hub.history(pair, {SIZE: 120, OTHER: 150}))
    states = [
        (hub.history([]), "was not looked at"),
        (hub.history([], {SIZE: 100}), "was not looked at"),  # narrower benchmarks
        (hub.history([], {SIZE: 100, OTHER: 100}, newest=3), "was not measured since"),  # silent
        (hub.history([], {SIZE: 100, OTHER: 100}, newest=1), "was not measured since"),
        (hub.history([], {SIZE: 100, OTHER: 140}), ""),  # still worse
    ]
    for history, why in states:
        state = hub.state
        before = json.dumps(state)
        done = hub.issues(None, history)
        assert hub.only()["state"] == "OPEN", why
        if why:
            assert done.stdout.startswith("update 1: Kept open: "), why
            assert why in hub.only()["comments"][-1].replace("\\", "")
            assert hub.issues(None, history).stdout == NOTHING  # once
        else:
            assert done.stdout == NOTHING
        hub.state = json.loads(before)
    done = hub.issues(None, hub.history([], {SIZE: 101, OTHER: 100}))
    assert done.stdout.startswith("close 1: Gone: ")
    assert "back at 101 bytes at " in done.stdout
    assert hub.only()["state"] == "CLOSED"
    hub.issues(None, hub.history(pair, {SIZE: 120, OTHER: 150}))  # the same commits after all
    assert (hub.only()["state"], len(hub.only()["comments"])) == ("OPEN", 2)


def test_one_lucky_value_of_a_noisy_figure_closes_nothing(hub: GitHub) -> None:
    hub.issues(None, hub.history([hub.changed(0.05, (1, 3))], {SIZE: 105}))

    def measured(*values: float, newest: int = 10) -> Document:
        history = hub.history([], {SIZE: values[-1]}, newest=newest)
        commits = hub.commits[newest - len(values) + 1 : newest + 1]
        history["figures"][0]["recent"] = list(zip(commits, values, strict=True))
        return history

    for lucky in (
        measured(106, 104, 105, 107, 100),
        measured(106, 99, 105, 107, 100),
        measured(100, 101, 100, 99, 101, newest=7),  # the first of them is of the commit itself
    ):
        assert hub.issues(None, lucky).stdout == NOTHING
        assert hub.only()["state"] == "OPEN"
    done = hub.issues(None, measured(106, 104, 101, 98, 100))
    assert done.stdout.startswith("close 1: Gone: ")
    assert "back at 101 bytes at " in done.stdout


def test_what_turns_out_to_be_the_machine_s_is_said(hub: GitHub) -> None:
    hub.issues(None, hub.history([hub.changed(0.2)], {SIZE: 120}))
    shared = hub.history([hub.changed(0.2, standing="shared")], {SIZE: 120})
    assert "nearly all figures of its machine moved alike" in hub.issues(None, shared).stdout
    assert hub.only()["state"] == "OPEN"
    doubtful = hub.history([hub.changed(0.2, standing="suspected")], {SIZE: 120})
    assert hub.issues(None, doubtful).stdout == NOTHING


def test_a_clone_that_lacks_the_commit_closes_nothing(hub: GitHub) -> None:
    hub.issues(None, hub.history([hub.changed(0.2)], {SIZE: 120}))
    state = hub.state
    state["issues"][0]["body"] = state["issues"][0]["body"].replace(hub.commits[3], "e" * 40)
    hub.state = state
    done = hub.issues(None, hub.history([], {SIZE: 100}))
    assert "commit eeeeeeeeee is not known here" in done.stdout
    assert hub.only()["state"] == "OPEN"
    assert hub.issues(None, hub.history([hub.changed(0.2)], {SIZE: 120})).exit_code == 0
    assert len(hub.state["issues"]) == 1  # figures in common: the same issue


def test_another_version_of_a_benchmark_settles_nothing(hub: GitHub) -> None:
    hub.issues(None, hub.history([hub.changed(0.2, version="1")], {SIZE: 120}))
    newer = hub.history([], {SIZE: 100})
    newer["figures"][0]["version"] = "2"
    assert "another version of its benchmark" in hub.issues(None, newer).stdout
    newer["figures"][0] |= {"version": "1", "since": hub.commits[5]}
    assert hub.issues(None, newer).stdout.startswith("close 1: Settled: ")


def test_machines_stand_together_and_environments_apart(hub: GitHub) -> None:
    here = hub.changed(0.2, (1, 4))
    there = {**hub.changed(0.3, (2, 6)), "machine": "other"}
    other = {**hub.changed(0.1, (2, 6)), "environment": "py3.12"}
    later = hub.changed(0.2, (7, 8), TIME)
    creep = hub.changed(0.4, (1, 9), OTHER, kind="creep")
    hub.issues(None, hub.history([here, there, other, later, creep], {}))
    issues = hub.state["issues"]
    assert len(issues) == 3
    (first,) = [each for each in issues if "other" in each["body"]]
    said = marked(first["body"])
    assert said is not None
    assert (said.good, said.bad) == (hub.commits[2], hub.commits[4])
    assert len({figure.place for figure in said.figures}) == 3
    assert "little by little" in "".join(each["body"] for each in issues)


@pytest.mark.parametrize(
    "more",
    [
        {"severity": "info"},
        {"standing": "suspected"},
        {"standing": "shared"},
        {"lasting": False},
        {"regression": False},
        {"acknowledged": {"action": "expected", "reason": "r", "author": "A", "date": "d"}},
    ],
)
def test_what_nobody_minds_opens_none(hub: GitHub, more: Document) -> None:
    assert hub.issues(None, hub.history([hub.changed(0.2, **more)], {SIZE: 120})).stdout == NOTHING


def test_what_somebody_decided_closes_and_comes_back(hub: GitHub) -> None:
    found = hub.changed(0.2)
    hub.issues(None, hub.history([found], {SIZE: 120}))
    said = {"action": "ignore", "reason": "r @all", "author": "A", "date": "2026-01-01"}
    decided = {**found, "acknowledged": {**said, "until": "2026-12-01"}}
    done = hub.issues(None, hub.history([decided], {SIZE: 120}))
    assert "close 1: Settled: " in done.stdout
    assert "ignore until 2026-12-01: r @\u200ball (A, 2026-01-01)" in hub.only()["comments"][0]
    assert hub.issues(None, hub.history([decided], {SIZE: 120})).stdout == NOTHING
    hub.issues(None, hub.history([found], {SIZE: 120}))  # it is over
    assert hub.only()["state"] == "OPEN"
    hub.issues(None, hub.history([{**found, "severity": "info"}], {SIZE: 120}))
    assert "the policy calls it information alone" in hub.only()["comments"][-1]
    assert hub.only()["state"] == "CLOSED"


def before_causes(hub: GitHub, **more: Any) -> Document:
    """The mark of an issue from before causes."""
    identity = marked_id(hub)
    said = {"id": identity, "machine": "box", "outcome": "step", "effect": 0.2, "absolute": False}
    where = f"{hub.commits[1]}..{hub.commits[3]}"
    return {**said, "where": where, "source": "history", **more}


def marked_id(hub: GitHub) -> str:
    hub.issues(None, hub.history([hub.changed(0.2)], {SIZE: 120}))
    said = marked(hub.only()["body"])
    assert said is not None
    hub.state = {**hub.state, "issues": []}
    return said.figures[0].id


def with_old_mark(hub: GitHub, **more: Any) -> None:
    body = f"<!-- actprune-ci regression {json.dumps(before_causes(hub, **more))} -->\nold text"
    issue = {"number": 1, "state": "OPEN", "title": "worse: a", "body": body, "comments": []}
    hub.state = {**hub.state, "issues": [{**issue, "labels": [github.LABEL]}]}


def test_an_issue_from_before_causes_goes_on_as_one(hub: GitHub) -> None:
    with_old_mark(hub)
    done = hub.issues(None, hub.history([hub.changed(0.2)], {SIZE: 120}))
    assert done.stdout.startswith("update 1: worse: ")
    assert hub.only()["comments"] == []
    assert "<!-- actprune-ci cause " in hub.only()["body"]
    assert "regression {" not in hub.only()["body"]
    assert hub.issues(None, hub.history([hub.changed(0.2)], {SIZE: 120})).stdout == NOTHING


def test_an_issue_from_before_causes_is_closed_like_any(hub: GitHub) -> None:
    with_old_mark(hub)
    assert "was not looked at" in hub.issues(None, hub.history([])).stdout
    hub.issues(None, hub.history([], {SIZE: 100}))  # its old level is in no document
    assert hub.only()["state"] == "OPEN"
    over = hub.changed(0.2, lasting=False)
    hub.issues(None, hub.history([over], {SIZE: 100}))
    assert hub.only()["state"] == "CLOSED"
    with_old_mark(hub, source="gate", outcome="slower")
    hub.issues(hub.grown(100, (5, 6), 120))
    assert hub.only()["state"] == "CLOSED"


def test_single_issues_of_one_cause_become_one(hub: GitHub) -> None:
    with_old_mark(hub)
    hub.issues(None, hub.history([hub.changed(0.2), hub.changed(0.4, (1, 3), OTHER)], {}))
    state = hub.state
    other = dict(state["issues"][0], number=2)
    kept = Kept(marked_id(hub), "box", "a", "step", 0.2, 100.0, 120.0)
    other["body"] = mark(Mark("f" * 16, hub.commits[1], hub.commits[3], "step", (kept,)))
    hub.state = {**state, "issues": [*state["issues"], other]}
    done = hub.issues(None, hub.history([hub.changed(0.2), hub.changed(0.4, (1, 3), OTHER)], {}))
    assert "close 2: Told in #1 now." in done.stdout
    assert [each["state"] for each in hub.state["issues"]] == ["OPEN", "CLOSED"]


def test_what_vanished_is_closed_when_it_is_measured_again(hub: GitHub) -> None:
    gone = hub.judged(Pairs(SIZE, (), (), "skipped", "vanished"))
    assert hub.issues(gone).stdout.startswith("create: vanished: ")
    assert "**1 figure vanished since 2026-11-03**" in hub.only()["body"]
    new = hub.judged(Pairs(SIZE, (), (), "skipped", "new"), of=(2, 3))
    assert hub.issues(new).stdout.startswith("close 1: Gone: ")


def test_what_somebody_closed_stays_closed(hub: GitHub) -> None:
    hub.issues(hub.grown(120))
    hub.close_by_hand()
    assert hub.issues(hub.grown(120)).stdout == NOTHING
    assert hub.issues(None, hub.history([])).stdout == NOTHING
    done = hub.issues(hub.grown(180))
    assert done.stdout.startswith("reopen 1: worse: ")
    assert hub.only()["state"] == "OPEN"


def test_another_machines_figures_close_nothing(hub: GitHub) -> None:
    hub.issues(hub.grown(120))
    better = {**hub.grown(100, (2, 3), 120), "machine": "another"}
    assert hub.issues(better).stdout == NOTHING
    looked = hub.history([], {SIZE: 100})
    looked["figures"][0]["machine"] = "another"
    assert "was not looked at" in hub.issues(None, looked).stdout


def test_issues_without_a_mark_are_left_alone(hub: GitHub) -> None:
    state = hub.state
    base = {"state": "OPEN", "title": "a", "labels": [github.LABEL], "comments": []}
    bodies = [
        "by hand",
        "<!-- actprune-ci regression {} -->",
        "<!-- actprune-ci regression {]} -->",
        "<!-- actprune-ci cause {} -->",
        '<!-- actprune-ci cause {"id": 1} -->',
    ]
    state["issues"] = [{**base, "number": n, "body": body} for n, body in enumerate(bodies, 1)]
    hub.state = state
    assert hub.issues(hub.judged(), hub.history([])).stdout == NOTHING


def test_a_dry_run_asks_nobody(hub: GitHub) -> None:
    done = hub.issues(hub.grown(120), None, "--dry-run")
    assert done.stdout.startswith("create: worse: ")
    assert hub.state["calls"] == []


def test_a_flood_of_new_issues_is_held_back(hub: GitHub) -> None:
    found = [hub.changed(0.2, (i, i + 1), Key(f"a.track_{i}")) for i in range(5)]
    done = hub.issues(None, hub.history(found), "--most", "3")
    assert len(hub.state["issues"]) == 3
    assert done.stderr == "2 more causes have no issue yet (--most)\n"
    hub.issues(None, hub.history(found), "--most", "3")
    assert len(hub.state["issues"]) == 5


def test_a_cause_of_many_figures_fits_into_an_issue(hub: GitHub) -> None:
    found = [hub.changed(0.2, (1, 3), Key(f"a.track_{i}{'é' * 200}")) for i in range(2000)]
    hub.issues(None, hub.history(found))
    text = hub.only()["body"]
    assert len(text) <= github.LARGEST + 100
    assert marked(text) is not None
    assert hub.issues(None, hub.history(found)).stdout == NOTHING


def test_texts_are_escaped(hub: GitHub) -> None:
    nasty = Key("suite.<img src=x>@all`|", (), "saved_bytes", "bytes")
    document = hub.judged(Pairs(nasty, (1.0,), (2.0,)))
    for finding in document["findings"]:
        finding |= {"detail": "--> <script> @all | `x`", "owner": "&commat;all"}
    document["base"] = "x](http://e) <b>@all --output=y"
    hub.issues(document)
    issue = hub.only()
    assert "](http" not in issue["body"].partition(" -->\n")[2].replace(r"\]", "")
    assert "@\u200ball" in issue["title"]
    _, _, shown = issue["body"].partition(" -->\n")
    plain = "".join(shown.split("```")[::2])  # but for the commands, which are code
    assert "<" not in plain.replace(r"\<", "")
    assert r"\<script\> @" + "\u200b" + r"all \| \`x\`" in plain
    assert "@all" not in plain


def test_the_mark_cannot_be_ended_from_within() -> None:
    figure = Kept("0" * 16, "--> <b>", "n", "slower", 0.5, 1.0, 2.0)
    said = Mark("1" * 16, "a", "b", "step", (figure,), suspects=("c",))
    assert mark(said).count("-->") == 1
    assert marked(f"text\n{mark(said)}\nmore") == said


@pytest.mark.parametrize(
    ("remote", "commit"),
    [
        ("https://github.com/a/b.git", "https://github.com/a/b/commit/c"),
        ("https://user:secret@github.com/a/b", "https://github.com/a/b/commit/c"),
        ("git@github.com:a/b.git", "https://github.com/a/b/commit/c"),
        (
            "ssh://git@gitlab.example.org:2222/a/b/c.git",
            "https://gitlab.example.org/a/b/c/-/commit/c",
        ),
        ("git@bitbucket.org:a/b", "https://bitbucket.org/a/b/commits/c"),
        ("/srv/git/github.com/a", ""),
        ("https://example.org/a/b", ""),
        ("https://github.com/a/b](http://x) ", ""),
        ("javascript://github.com/a", ""),
    ],
)
def test_links_to_forges(remote: str, commit: str) -> None:
    assert link(forge(remote), "c") == commit


def test_a_gh_that_fails(hub: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GH_FAILS", "1")
    wanted = "gh issue list: error connecting to github.example"
    assert str(hub.issues(hub.grown(120)).exception) == wanted
    monkeypatch.setenv("PATH", "")
    wanted = "gh: not found; it is GitHub's program, https://cli.github.com"
    assert str(hub.issues(hub.grown(120)).exception) == wanted


def test_bad_input(hub: GitHub) -> None:
    assert str(hub.issues().exception) == "issues: expected --gate, --history or both, got neither"
    done = hub.issues({"head": "b", "machine": "c", "findings": []})
    assert str(done.exception) == f"{hub.folder / 'gate.json'}: base: this key is required"
    assert isinstance(done.exception, InputError)


HEAD = "c" * 40


@pytest.fixture
def report(hub: GitHub) -> Path:
    state = hub.state
    theirs = {"viewerDidAuthor": False, "body": "<!-- actprune-ci comment benchmark -->\nfoe"}
    url = "https://github.example/actprune/pull/7#issuecomment-1"
    state["pulls"]["7"] = {"headRefOid": HEAD, "comments": [{"url": url, **theirs}]}
    hub.state = state
    path = hub.folder / "gate.md"
    path.write_text("## good", "utf-8")
    return path


def comment(report: Path, *more: str) -> Result:
    words = ["comment", "--pr", "7", "--head", HEAD, "--report", str(report), *more]
    return CliRunner().invoke(app(), words)


def test_a_comment_is_kept_up_to_date(hub: GitHub, report: Path) -> None:
    assert comment(report).stdout == "pull request 7: written\n"
    assert comment(report).stdout == "pull request 7: unchanged\n"
    report.write_text("## regression", "utf-8")
    assert comment(report).stdout == "pull request 7: updated\n"
    assert comment(report, "--name", "another").stdout == "pull request 7: written\n"
    bodies = [each["body"] for each in hub.state["pulls"]["7"]["comments"]]
    assert bodies == [
        "<!-- actprune-ci comment benchmark -->\nfoe",  # somebody else's is not touched
        "<!-- actprune-ci comment benchmark -->\n## regression",
        "<!-- actprune-ci comment another -->\n## regression",
    ]


def test_a_report_on_another_commit_is_not_shown(hub: GitHub, report: Path) -> None:
    done = comment(report, "--head", "d" * 40)
    wanted = f"--head: pull request 7 is at {'c' * 12}, the report is on {'d' * 12}"
    assert str(done.exception) == wanted
    assert len(hub.state["pulls"]["7"]["comments"]) == 1


def test_a_long_report_is_cut(hub: GitHub, report: Path) -> None:
    report.write_text("x" * 100_000, "utf-8")
    comment(report)
    body = hub.state["pulls"]["7"]["comments"][1]["body"]
    assert len(body) < 65_536
    assert body.endswith("\n\n(cut: the report is longer)\n")


def test_what_is_cut_within_a_block_ends_it(hub: GitHub, report: Path) -> None:
    report.write_text("text\n\n````sh\n```\n" + "line\n" * 20_000, "utf-8")
    comment(report)
    body = hub.state["pulls"]["7"]["comments"][1]["body"]
    assert body.endswith("line\n````\n\n(cut: the report is longer)\n")


def test_a_report_from_another_repository_is_not_shown(hub: GitHub, report: Path) -> None:
    state = hub.state
    theirs = {"headRepository": {"name": "actprune"}, "headRepositoryOwner": {"login": "them"}}
    state["pulls"]["7"] |= theirs
    hub.state = state
    done = comment(report, "--from", "foe/actprune")
    wanted = "--from: pull request 7 is from them/actprune, the report from foe/actprune"
    assert str(done.exception) == wanted
    assert comment(report, "--from", "Them/actprune").stdout == "pull request 7: written\n"
    state = hub.state
    state["pulls"]["7"]["headRepository"] = None  # the fork was deleted
    hub.state = state
    assert "is from them/?" in str(comment(report, "--from", "them/actprune").exception)


def test_bad_comments(report: Path) -> None:
    wanted = "--name: expected letters, digits and -, got '-->'"
    assert str(comment(report, "--name=-->").exception) == wanted
    assert "cannot be read" in str(comment(report.with_name("no.md")).exception)
