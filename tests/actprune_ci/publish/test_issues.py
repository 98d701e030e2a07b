"""Issues and comments on GitHub, against a `gh` that keeps its state in a file."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from actprune_ci.cli import app
from actprune_ci.judge.gate import gate
from actprune_ci.judge.policy import Policy
from actprune_ci.model.runs import AbRun, Key, Pairs
from actprune_ci.publish import github
from actprune_ci.publish.issues import Said, mark, marked
from actprune_ci.publish.reports import json as gate_json
from actprune_common.errors import InputError
from tests.actprune_ci.judge.test_gate import run

SIZE = Key("suite.Kernels.track_saved_bytes", (("spec", "bsr"),), "saved_bytes", "bytes")
TIME = Key("suite.Kernels.time_it", (), "time", "s")
Document = dict[str, Any]


class GitHub:
    """The state that the fake gh keeps, and the files that the commands read."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, folder / "github.json"
        self.state = {"issues": [], "labels": [], "pulls": {}, "calls": []}

    @property
    def state(self) -> Any:
        return json.loads(self.place.read_text("utf-8"))

    @state.setter
    def state(self, state: Document) -> None:
        self.place.write_text(json.dumps(state), "utf-8")

    def issues(
        self, gate: Document | None = None, history: list[Document] | None = None, *more: str
    ) -> Result:
        words = ["issues", *more]
        files = {"gate": gate, "history": None if history is None else {"findings": history}}
        for name, document in files.items():
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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitHub:
    program = tmp_path / "bin/gh"
    program.parent.mkdir()
    source = Path(__file__).with_name("fake_gh.py")
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {source} "$@"\n', "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    made = GitHub(tmp_path)
    monkeypatch.setenv("FAKE_GH", str(made.place))
    return made


def judged(*pairs: Pairs, base: str = "aaaa", head: str = "bbbb") -> Document:
    """gate.json, as the gate writes it."""
    made: AbRun = run(*pairs, base=base, head=head)
    document: Document = json.loads(gate_json.render(gate(Policy(), [made])))
    return document


def grown(size: float, base: str = "aaaa", head: str = "bbbb", before: float = 100) -> Document:
    return judged(Pairs(SIZE, (before,), (size,)), base=base, head=head)


def changed(effect: float, *, lasting: bool = True, key: Key = SIZE) -> Document:
    figure = {"name": str(key), "benchmark": key.benchmark, "params": dict(key.params)}
    level = {"before": 100.0, "after": 100 * (1 + effect), "effect": effect}
    said = {"metric": key.metric, "unit": key.unit, "kind": "step", "range": "aaaa..cccc"}
    return {**figure, **level, **said, "machine": "box", "regression": True, "lasting": lasting}


def test_a_regression_has_one_issue(hub: GitHub) -> None:
    done = hub.issues(grown(120))
    assert done.exit_code == 0, done.output
    title = "worse: suite.Kernels.track_saved_bytes(spec=bsr), saved_bytes"
    assert done.stdout == f"create: {title}\n"
    issue = hub.only()
    assert (issue["title"], issue["state"], issue["comments"]) == (title, "OPEN", [])
    assert issue["labels"] == [github.LABEL]
    assert "| change | +20 % |" in issue["body"]
    assert "| figures | 100 bytes → 120 bytes |" in issue["body"]
    assert "actprune-ci ab aaaa bbbb --benchmarks" in issue["body"]
    assert hub.issues(grown(120)).stdout == "nothing to be done\n"
    assert hub.only() == issue


def test_it_stays_open_while_the_gate_only_sees_no_more_change(hub: GitHub) -> None:
    hub.issues(grown(120))
    assert hub.issues(grown(120, "bbbb", "cccc", 120)).stdout == "nothing to be done\n"
    assert hub.issues(judged(base="cccc", head="dddd")).stdout == "nothing to be done\n"
    assert hub.only()["state"] == "OPEN"


def test_it_is_closed_when_the_gate_shows_the_way_back(hub: GitHub) -> None:
    hub.issues(grown(120))
    assert hub.issues(grown(118, "bbbb", "cccc", 120)).stdout == "nothing to be done\n"
    done = hub.issues(grown(100, "cccc", "dddd", 118))
    assert done.stdout == "close 1: Gone: better in cccc..dddd.\n"
    issue = hub.only()
    assert (issue["state"], issue["comments"]) == ("CLOSED", ["Gone: better in cccc..dddd."])
    assert marked(issue["body"]) is not None
    assert hub.issues(grown(100, "cccc", "dddd", 118)).stdout == "nothing to be done\n"
    hub.issues(grown(150, "dddd", "eeee", 100))  # it comes again: the same issue
    assert (hub.only()["state"], len(hub.only()["comments"])) == ("OPEN", 2)


def test_a_change_upon_a_change_is_told_in_the_same_issue(hub: GitHub) -> None:
    hub.issues(grown(120))
    hub.issues(grown(144, "bbbb", "cccc", 120))
    issue = hub.only()
    assert len(issue["comments"]) == 1
    assert issue["comments"][0].startswith("**slower** +44 %\n")
    said = marked(issue["body"])
    assert said is not None
    assert said.effect == pytest.approx(0.44)
    assert hub.issues(grown(144, "bbbb", "cccc", 120)).stdout == "nothing to be done\n"
    hub.issues(grown(145, "cccc", "dddd", 144))  # not worth another word
    assert len(hub.only()["comments"]) == 1


def test_the_history_adds_where_it_lies_and_when_it_ends(hub: GitHub) -> None:
    hub.issues(grown(120))
    nothing = judged(base="bbbb", head="cccc")
    hub.issues(nothing, [changed(0.2)])
    assert hub.only()["comments"][0].startswith("**step** +20 %\n")
    assert "| commits | aaaa..cccc |" in hub.only()["body"]
    assert hub.issues(nothing, [changed(0.21)]).stdout == "nothing to be done\n"
    done = hub.issues(nothing, [changed(0.2, lasting=False)])
    assert done.stdout == "close 1: Gone: the newest commits are back at the old level.\n"
    assert hub.only()["state"] == "CLOSED"


def test_creep_is_known_to_the_history_alone(hub: GitHub) -> None:
    assert hub.issues(None, [changed(0.03)]).exit_code == 0
    assert hub.issues(judged(base="bbbb", head="cccc")).stdout == "nothing to be done\n"
    done = hub.issues(None, [])
    assert done.stdout == "close 1: Gone: the history no longer shows it.\n"


def test_what_vanished_is_closed_when_it_is_measured_again(hub: GitHub) -> None:
    gone = judged(Pairs(SIZE, (), (), "skipped", "vanished"))
    assert hub.issues(gone).stdout.startswith("create: vanished: ")
    new = judged(Pairs(SIZE, (), (), "skipped", "new"), base="bbbb", head="cccc")
    assert hub.issues(new).stdout == "close 1: Gone: measured again, new in bbbb..cccc.\n"


def test_what_somebody_closed_stays_closed(hub: GitHub) -> None:
    hub.issues(grown(120))
    hub.close_by_hand()
    assert hub.issues(grown(120)).stdout == "nothing to be done\n"
    assert hub.issues(None, []).stdout == "nothing to be done\n"
    done = hub.issues(grown(180, "cccc", "dddd", 120))
    assert done.stdout.startswith("reopen 1: worse: ")
    assert hub.only()["state"] == "OPEN"


def test_another_machines_issues_are_left_alone(hub: GitHub) -> None:
    hub.issues(grown(120))
    better = {**grown(100, "bbbb", "cccc", 120), "machine": "another"}
    assert hub.issues(better).stdout == "nothing to be done\n"
    hub.issues({**grown(120), "machine": "another"})
    assert len(hub.state["issues"]) == 2


def test_issues_without_a_mark_are_left_alone(hub: GitHub) -> None:
    state = hub.state
    base = {"state": "OPEN", "title": "a", "labels": [github.LABEL], "comments": []}
    bodies = [
        "by hand",
        "<!-- actprune-ci regression {} -->",
        "<!-- actprune-ci regression {]} -->",
    ]
    state["issues"] = [{**base, "number": n, "body": body} for n, body in enumerate(bodies, 1)]
    hub.state = state
    assert hub.issues(judged(), []).stdout == "nothing to be done\n"


def test_a_dry_run_asks_nobody(hub: GitHub) -> None:
    done = hub.issues(grown(120), None, "--dry-run")
    assert done.stdout.startswith("create: worse: ")
    assert hub.state["calls"] == []


def test_a_flood_of_new_issues_is_held_back(hub: GitHub) -> None:
    keys = [Key(f"suite.track_{i}", (), "saved_bytes", "bytes") for i in range(5)]
    gate = judged(*(Pairs(key, (1.0,), (2.0,)) for key in keys))
    done = hub.issues(gate, None, "--most", "3")
    assert len(hub.state["issues"]) == 3
    assert done.stderr == "2 more regressions have no issue yet (--most)\n"
    hub.issues(gate, None, "--most", "3")
    assert len(hub.state["issues"]) == 5


def test_texts_are_escaped(hub: GitHub) -> None:
    nasty = Key("suite.<img src=x>@all`|", (), "saved_bytes", "bytes")
    document = judged(Pairs(nasty, (1.0,), (2.0,)))
    for finding in document["findings"]:
        finding |= {"detail": "--> <script> @all | `x`", "command": "```\n# not a heading"}
    hub.issues(document)
    issue = hub.only()
    assert "@\u200ball" in issue["title"]
    _, _, shown = issue["body"].partition(" -->\n")
    assert "<" not in shown.replace(r"\<", "")
    assert r"\<script\> @" + "\u200b" + r"all \| \`x\`" in shown
    assert "\n````sh\n```\\n# not a heading\n````\n" in shown


def test_the_mark_cannot_be_ended_from_within() -> None:
    said = Said("0" * 16, "--> <b>", "slower", 0.5, where="a..b")
    assert mark(said).count("-->") == 1
    assert marked(f"text\n{mark(said)}\nmore") == said


def test_a_gh_that_fails(hub: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GH_FAILS", "1")
    wanted = "gh issue list: error connecting to github.example"
    assert str(hub.issues(grown(120)).exception) == wanted
    monkeypatch.setenv("PATH", "")
    wanted = "gh: not found; it is GitHub's program, https://cli.github.com"
    assert str(hub.issues(grown(120)).exception) == wanted


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
