"""What a history does not look at is said, and no verdict rests on it."""

import json
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from typer.testing import CliRunner

from actprune_ci.cli import app
from actprune_ci.history.coverage import Coverage, MachineSpan, coverage
from actprune_ci.history.series import branch_commits
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.store.store import write


def git(repo: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    command = ["git", *who, "-C", str(repo), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def commits(repo: Path, count: int, said: str = "") -> list[str]:
    for number in range(count):
        git(repo, "commit", "-q", "--allow-empty", "-m", f"{said}{number}")
    return git(repo, "rev-list", "--reverse", f"-{count}", "HEAD").split()


def measured(
    store: Path, commit: str, night: int, machine: str = "box", source: str = "asv"
) -> None:
    day = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(days=night)
    figure = Measurement(Key("a.track_nbytes", (), "nbytes", "bytes"), (1000.0 + (night >= 10),))
    facts = {"env_name": "e"}
    run = Run(source, commit, False, day.isoformat(), machine, facts, (figure,))  # type: ignore[arg-type]
    write(run, store)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "repo").mkdir()
    git(tmp_path / "repo", "init", "-q", "-b", "main")
    return tmp_path / "repo"


def said(store: Path, repo: Path, *more: str) -> tuple[int, str]:
    done = CliRunner().invoke(app(), ["history", str(store), "--repo", str(repo), *more])
    return done.exit_code, done.output


def test_a_shallow_clone_gives_no_verdict(repo: Path, tmp_path: Path) -> None:
    store, shallow = tmp_path / "store", tmp_path / "shallow"
    for night, commit in enumerate(commits(repo, 20)):
        measured(store, commit, night)
    assert said(store, repo)[0] == 0
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repo}", str(shallow))
    out = tmp_path / "history.json"
    code, text = said(store, shallow, "--out", str(out))
    assert code == 3
    assert "the store has figures of 20 commits, and this clone lacks 19 of them" in text
    assert "git fetch --unshallow brings them" in text
    assert not out.exists()
    code, text = said(store, shallow, "--allow-missing")
    assert code == 0
    assert "note: 19 measured commits are not in this clone and were not looked at" in text


def test_a_rebased_branch_gives_no_verdict_unless_told(repo: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    kept = commits(repo, 40)
    git(repo, "checkout", "-q", "-b", "old")
    lost = commits(repo, 20, "old")
    for night, commit in enumerate([*kept, *lost]):
        measured(store, commit, night)
    code, text = said(store, repo)
    assert (code, "note: 20 measured commits are of other branches: left out" in text) == (0, True)
    git(repo, "checkout", "-q", "main")
    git(repo, "branch", "-q", "-D", "old")
    git(repo, "reflog", "expire", "--expire=now", "--all")
    git(repo, "gc", "-q", "--prune=now")
    code, text = said(store, repo)
    assert code == 3
    assert "this clone lacks 20 of them" in text
    assert "was the branch rebased, or is this another repository? --allow-missing goes on" in text
    code, text = said(store, repo, "--allow-missing")
    assert (code, "20 measured commits are not in this clone" in text) == (0, True)


def test_what_a_rebase_left_behind_is_as_missing_as_in_a_fresh_clone(
    repo: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    kept = commits(repo, 20)
    for night, commit in enumerate([*kept, *commits(repo, 20, "old")]):
        measured(store, commit, night)
    git(repo, "reset", "-q", "--hard", kept[-1])  # the objects and the reflog stay
    commits(repo, 20, "new")
    code, text = said(store, repo)
    assert (code, "this clone lacks 20 of them" in text) == (3, True)
    assert said(store, repo, "--allow-missing")[0] == 0


def test_heads_of_pull_requests_may_be_missing(repo: Path, tmp_path: Path) -> None:
    for night, commit in enumerate(commits(repo, 3)):
        measured(tmp_path / "store", commit, night)
    for number in range(9):
        measured(tmp_path / "store", f"{number + 1}" * 40, 10 + number, source="ab")
    found = coverage(tmp_path / "store", repo, branch_commits(repo, "main"))
    assert (found.unknown, found.gap, found.known) == ((), "", 3)


def test_a_few_old_commits_are_only_noted(repo: Path, tmp_path: Path) -> None:
    measured(tmp_path / "store", "a" * 40, 0)
    for night, commit in enumerate(commits(repo, 20)):
        measured(tmp_path / "store", commit, night + 1)
    found = coverage(tmp_path / "store", repo, branch_commits(repo, "main"))
    assert (found.gap, found.unknown) == ("", ("a" * 40,))
    measured(tmp_path / "store", "b" * 40, 30)  # the newest: what it shows is not known
    found = coverage(tmp_path / "store", repo, branch_commits(repo, "main"))
    assert "lacks 2 of them" in found.gap


def notes(*machines: MachineSpan) -> list[str]:
    listed = tuple(f"{i:040x}" for i in range(50))
    return list(Coverage(50, (), (), False, False, machines, listed).notes())


def test_silent_renamed_and_hosted_machines_are_said() -> None:
    assert notes(MachineSpan("a", 0, 49, 50)) == []
    (silent,) = notes(MachineSpan("a", 0, 20, 20), MachineSpan("b", 0, 49, 50))
    assert silent.startswith("machine a has been silent for 29 commits, since 0000000000")
    (renamed,) = notes(MachineSpan("a", 0, 20, 20), MachineSpan("b", 21, 49, 29))
    assert "; b begins there: renamed? (record --machine keeps a name)" in renamed
    hosts = [MachineSpan(f"fv-az{i}", 5 * i, 5 * i + 1, 2) for i in range(8)]
    (hosted,) = notes(*hosts, MachineSpan("own", 0, 49, 50))
    assert hosted.startswith("8 of 9 machines measured 3 commits or fewer, as hosted runners do")


def test_what_was_looked_at_is_in_the_document(repo: Path, tmp_path: Path) -> None:
    listed = commits(repo, 12)
    for night, commit in enumerate(listed):
        measured(tmp_path / "store", commit, night)
        if night < 5:
            measured(tmp_path / "store", commit, night, "other")
    out = tmp_path / "history.json"
    code, _ = said(tmp_path / "store", repo, "--out", str(out))
    assert code == 0
    document = json.loads(out.read_text("utf-8"))
    assert document["schema"] == 2
    assert {(f["machine"], f["newest"], f["measured"]) for f in document["figures"]} == {
        ("box", listed[-1], 12),
        ("other", listed[4], 5),
    }
