"""Recording: nothing ends it, nothing is left behind, and every file has an outcome."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from actprune_ci import readers
from actprune_ci.cli import app
from actprune_ci.store import store as stores
from actprune_ci.store.record import Recording, record
from actprune_common.errors import InputError
from tests.actprune_ci.readers import tools
from tests.actprune_ci.readers.tools import FILES

ROOT = Path(__file__).parents[3]


def outcomes(recorded: list[Recording]) -> dict[str, str]:
    return {outcome.path.name: outcome.status for outcome in recorded}


def left(store: Path) -> list[str]:
    """What a writer left unfinished."""
    return [str(path) for path in store.rglob("*") if path.name.startswith(".")]


def test_every_tool_is_recorded_from_one_folder(tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    for name, contents in FILES.items():
        (inputs / (name if name.endswith(".js") else f"{name}.json")).write_bytes(contents)
    recorded = record([inputs], tmp_path / "store", machine="m")
    assert len(recorded) == len(FILES)
    assert set(outcomes(recorded).values()) == {"recorded"}
    again = record([inputs], tmp_path / "store", machine="m")
    assert set(outcomes(again).values()) == {"duplicate"}
    assert left(tmp_path / "store") == []


def test_a_folder_of_criterion_and_of_a_page(tmp_path: Path) -> None:
    for name in ("new", "base"):
        folder = tmp_path / "in/fib" / name
        folder.mkdir(parents=True)
        (folder / "sample.json").write_text(json.dumps(tools.SAMPLE))
        (folder / "estimates.json").write_text(json.dumps(tools.ESTIMATES))
        (folder / "benchmark.json").write_text(json.dumps(tools.BENCHMARK))
        (folder / "tukey.json").write_text("[1.0, 2.0]")
    (tmp_path / "in/chart.js").write_text("function f() {}")
    (tmp_path / "in/data.js").write_bytes(FILES["data.js"])
    recorded = record([tmp_path / "in"], tmp_path / "store", machine="m")
    assert outcomes(recorded) == {"data.js": "recorded", "sample.json": "recorded"}
    assert [outcome.path.parent.name for outcome in recorded] == ["in", "new"]


def test_bad_files_are_set_aside_and_the_good_ones_recorded(tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    os.mkfifo(inputs / "pipe.json")
    (inputs / ("n" * 240 + ".json")).write_text("{")
    (inputs / "a\nb\x1b.json").write_text("{")
    (inputs / os.fsdecode(b"\xff.json")).write_text("{")
    (inputs / "zz.json").write_bytes(FILES["run"])
    (inputs / "nowhere.json").symlink_to(tmp_path / "nowhere")
    (inputs / "loop.json").symlink_to(inputs / "loop.json")
    (inputs / "folder.json").mkdir()
    recorded = record([inputs], tmp_path / "store")
    good = [outcome.path.name for outcome in recorded if outcome.status == "recorded"]
    assert (good, len(recorded)) == (["zz.json"], 7)
    aside = [outcome for outcome in recorded if outcome.status == "set aside"]
    assert all(outcome.reason.isprintable() for outcome in aside)
    reasons = list((tmp_path / "store/set-aside").glob("*.reason.txt"))
    assert len(reasons) == 6
    assert all(len(path.read_text("utf-8").splitlines()) == 3 for path in reasons)
    assert left(tmp_path / "store") == []
    # named by themselves they are no other
    again = record([inputs / "pipe.json", inputs / "zz.json"], tmp_path / "store")
    assert [outcome.status for outcome in again] == ["set aside", "duplicate"]


def test_a_folder_that_cannot_be_listed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in/closed").mkdir(parents=True)
    (tmp_path / "in/run.json").write_bytes(FILES["run"])
    real = os.scandir

    def refuse(path: Any) -> Any:  # root may list every folder: a test run by root needs this
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    recorded = record([tmp_path / "in"], tmp_path / "store")
    assert outcomes(recorded) == {"run.json": "recorded", "closed": "set aside"}
    assert recorded[1].reason == f"{tmp_path}/in/closed: cannot be listed (Permission denied)"


def test_a_file_that_vanishes_or_may_not_be_read_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.json").write_bytes(FILES["run"])
    real = os.open

    def refuse(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith("a.json"):
            (tmp_path / "a.json").unlink(missing_ok=True)
        if str(path).endswith("b.json"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    recorded = record([tmp_path / f"{name}.json" for name in ("a", "b", "c")], tmp_path / "store")
    assert [outcome.status for outcome in recorded] == ["set aside", "set aside", "recorded"]
    assert recorded[0].reason.endswith("a.json: cannot be read (No such file or directory)")
    assert recorded[1].reason.endswith("b.json: cannot be read (Permission denied)")


def test_what_the_store_stumbles_over_ends_no_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run", "static"):
        (tmp_path / f"{name}.json").write_bytes(FILES[name])
    real = stores.write

    def stumble(run: Any, store: Path) -> Path | None:
        if run.source == "asv":
            raise OverflowError("too\nmuch")
        return real(run, store)

    monkeypatch.setattr(stores, "write", stumble)
    recorded = record([tmp_path / "run.json", tmp_path / "static.json"], tmp_path / "store")
    assert [outcome.status for outcome in recorded] == ["set aside", "recorded"]
    told = "the store cannot hold it: OverflowError: too\\nmuch"
    assert recorded[0].reason == f"{tmp_path}/run.json: {told}"


def test_the_store_itself_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    store = tmp_path / "store"
    assert len(record([tmp_path], store)) == 1
    for inside in (tmp_path, store, store / "set-aside"):
        assert len(record([inside], store)) == (inside == tmp_path)


def test_an_ab_run_keeps_its_commits(tmp_path: Path) -> None:
    path = tmp_path / "ab.json"
    path.write_bytes(FILES["ab"])
    (aside,) = record([path], tmp_path / "store", commit="e" * 40)
    assert (aside.status, "--commit: this file tells" in aside.reason) == ("set aside", True)
    assert not (tmp_path / "store/runs").exists()
    (first,) = record([path], tmp_path / "store")
    (again,) = record([path], tmp_path / "store")
    assert (first.status, again.status) == ("recorded", "duplicate")
    commits = {stores.read(file).commit for file in first.files}
    assert commits == {tools.COMMIT, "f" * 40}


def test_a_commit_in_capitals_is_the_same_and_runs_without_one_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "h.json"
    path.write_bytes(FILES["hyperfine-2"])
    (without,) = record([path], tmp_path / "store", machine="m")
    (given,) = record([path], tmp_path / "store", commit="E" * 40, machine="m")
    assert (without.without_commit, given.without_commit) == (1, 0)
    assert stores.read(given.files[0]).commit == "e" * 40
    done = CliRunner().invoke(
        app(), ["record", str(path), "--store", str(tmp_path / "other"), "--machine", "m"]
    )
    assert done.exit_code == 0
    assert "1 runs have no commit, and so no place in a history: --commit gives one" in done.stderr


def test_paths_and_names_that_are_none_are_told_before_anything_is_recorded(tmp_path: Path) -> None:
    for name in ("x" * 300, "a\nb"):
        with pytest.raises(InputError) as problem:
            record([tmp_path / name], tmp_path / "store")
        shown = name.replace("\n", "\\n")
        assert str(problem.value) == f"{tmp_path}/{shown}: no such file or folder"
    with pytest.raises(InputError) as problem:
        record([tmp_path], tmp_path / "store", machine="a\nb")
    assert str(problem.value) == "machine: expected a printable name, got 'a\\nb'"
    assert not (tmp_path / "store").exists()


TERMINATED = """
import os, signal, sys
from actprune_ci.cli import app
real = os.fsync
def end_before(handle):  # the run's file stands beside its place
    os.kill(os.getpid(), signal.SIGTERM)
    real(handle)
os.fsync = end_before
sys.argv = ["actprune-ci", "record", sys.argv[1], "--store", sys.argv[2]]
app()()
"""


def test_a_recording_that_is_ended_leaves_nothing_half_written(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(FILES["run"])
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED, str(path), str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": os.pathsep.join([str(ROOT / "ci"), str(ROOT / "impl")])},
    )
    assert (done.returncode, done.stderr) == (130, "actprune-ci: interrupted\n")
    assert list((tmp_path / "store").rglob("*.*")) == []


def test_names_of_readers_are_in_the_page_of_the_store() -> None:
    page = (ROOT / "docs/store.md").read_text("utf-8")
    for name in readers.READERS:
        assert name.partition(" ")[0] in page, name
