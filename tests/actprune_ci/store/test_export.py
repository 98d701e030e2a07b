"""What a store exports: asv draws it all, and CSV holds every sample."""

import csv
import itertools
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from actprune_ci.cli import app
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.readers import read
from actprune_ci.store import export
from actprune_ci.store.query import sql
from actprune_ci.store.record import record
from actprune_ci.store.store import write
from actprune_common.errors import InputError

DATA = Path(__file__).parents[1] / "data"
ASV = DATA / "asv/tiny/5ba301d5-existing-py_usr_bin_python.json"


def run_in(folder: Path, *words: str) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    return run_in(folder, "git", *who, *words).strip()


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, list[str]]:
    """A repository of three commits and asv.conf.json, and the commits."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    commits = []
    for number in range(3):
        (folder / "code.py").write_text(f"x = {number}\n", "utf-8")
        git(folder, "add", "code.py")
        git(folder, "commit", "-q", "-m", str(number))
        commits.append(git(folder, "rev-parse", "HEAD"))
    configuration = {
        "version": 1,
        "project": "tiny",
        "repo": ".",
        "branches": ["main"],
        "environment_type": "virtualenv",
        "results_dir": "results",
        "html_dir": "html",
    }
    (folder / "asv.conf.json").write_text(json.dumps(configuration), "utf-8")
    return folder, commits


def load(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def values(file: dict[str, Any], name: str) -> list[Any]:
    """A benchmark's row of a result file."""
    row: list[Any] = file["results"][name]
    return row


def grid_of(file: dict[str, Any], name: str) -> dict[tuple[str, ...], Any]:
    from itertools import product

    result, axes = values(file, name)[:2]
    return dict(zip(product(*axes), result, strict=True))


def a_run(commit: str, day: int, *measurements: Measurement) -> Run:
    date = f"2026-01-{day:02}T00:00:00+00:00"
    return Run("actprune", commit, False, date, "m", {"python": "3.11"}, measurements)


def figure(name: str, metric: str, *samples: float, **params: str) -> Measurement:
    return Measurement(Key(name, tuple(params.items()), metric, "bytes"), samples)


def test_asv_publish_draws_every_source(tmp_path: Path, repository: tuple[Path, list[str]]) -> None:
    folder, commits = repository
    store = tmp_path / "store"
    for commit in commits:
        outcomes = record([DATA], store, commit=commit, machine="runner")
        assert {outcome.status for outcome in outcomes} == {"recorded"}
    exported = export.asv(store, folder / "results")
    assert (exported.commits, exported.notes) == (3, ())
    run_in(folder, sys.executable, "-m", "asv", "publish", "--no-pull")
    index = load(folder / "html/index.json")
    assert sorted(index["revision_to_hash"].values()) == sorted(commits)
    assert index["machines"]["runner"]["cpu"] == "AMD EPYC"
    drawn = set(index["benchmarks"])
    assert len(drawn) == exported.benchmarks
    assert {
        "suite.Grid.time_sum",
        "suite.Grid.track_bytes",
        "test_tiny.test_sum.time",
        "kernels.compress.ratio_to_dense",
        "training.accuracy",
        "training.predicted_peak",
        "training.time",
    } <= drawn
    graphs = {path.stem: path for path in (folder / "html/graphs").rglob("*.json")}
    points = load(graphs["training.accuracy"])
    assert len(points) == 3
    accuracies = [r["accuracy"] for r in load(DATA / "results.json")["training"]]
    assert sorted(value for _, result in points for value in result) == sorted(accuracies * 3)


def test_asv_reads_back_what_it_wrote(tmp_path: Path) -> None:
    record([ASV], tmp_path / "store")
    export.asv(tmp_path / "store", tmp_path / "out")
    (machine,) = [p for p in (tmp_path / "out").iterdir() if p.is_dir()]
    assert machine.name == "tiny"
    assert load(machine / "machine.json") == {
        "machine": "tiny",
        "arch": "",
        "cpu": "a CPU",
        "num_cpu": "",
        "os": "Linux",
        "ram": "1000",
        "version": 1,
    }
    mine, asvs = load(machine / ASV.name), load(ASV)
    for name in ("commit_hash", "env_name", "date", "python", "version"):
        assert mine[name] == asvs[name]
    assert set(mine["results"]) == set(asvs["results"])
    for name in ("suite.Grid.time_sum", "suite.Grid.track_bytes"):
        old, new = grid_of(asvs, name), grid_of(mine, name)
        assert set(old) == set(new)
        for point, value in old.items():
            same = new[point] == value or (math.isnan(value) and math.isnan(new[point]))
            assert same, (name, point)
    assert values(mine, "suite.time_plain")[0] == values(asvs, "suite.time_plain")[0]
    assert values(mine, "suite.time_plain")[4] == values(asvs, "suite.time_plain")[11]
    old, new = load(ASV.parents[1] / "benchmarks.json"), load(tmp_path / "out/benchmarks.json")
    for name in asvs["results"]:
        for field in ("type", "unit", "param_names"):
            assert new[name][field] == old[name][field], (name, field)
    # and the harness reads its own export as it read asv's file
    first, again = read(ASV)[0], read(machine / ASV.name)[0]
    assert {m.key: m.samples for m in again.measurements} == {
        m.key: m.samples for m in first.measurements
    }


def test_several_measurements_at_one_commit_are_their_median(tmp_path: Path) -> None:
    for day, samples in ((1, (1.0, 2.0)), (2, (9.0,))):
        write(a_run("a" * 40, day, figure("k", "nbytes", *samples)), tmp_path / "store")
    export.asv(tmp_path / "store", tmp_path / "out")
    file = load(tmp_path / "out/m/aaaaaaaa-actprune-py3.11.json")
    assert values(file, "k.nbytes")[0] == [2.0]
    assert values(file, "k.nbytes")[4] == [[1.0, 2.0, 9.0]]
    assert file["date"] == 1767225600000  # first measured; when it was committed is not known


def test_parameters_that_come_and_go_share_one_grid(tmp_path: Path) -> None:
    write(a_run("a" * 40, 1, figure("k", "n", 1.0, spec="dense")), tmp_path / "store")
    later = figure("k", "n", 2.0, spec="dense", layer="'10'")
    write(a_run("b" * 40, 2, later), tmp_path / "store")
    export.asv(tmp_path / "store", tmp_path / "out")
    entry = load(tmp_path / "out/benchmarks.json")["k.n"]
    assert entry["param_names"] == ["spec", "layer"]
    assert entry["params"] == [["'dense'"], ["'-'", "'10'"]]
    old = load(tmp_path / "out/m/aaaaaaaa-actprune-py3.11.json")
    new = load(tmp_path / "out/m/bbbbbbbb-actprune-py3.11.json")
    assert values(old, "k.n")[0] == [1.0, None]
    assert values(new, "k.n")[0] == [None, 2.0]


def test_runs_that_have_no_place_in_a_history_are_counted(tmp_path: Path) -> None:
    good = a_run("a" * 40, 1, figure("k", "n", 1.0))
    for run in (good, replace(good, dirty=True), replace(good, commit="")):
        write(run, tmp_path / "store")
    (tmp_path / "store/runs/x.parquet").write_bytes(b"")
    notes = export.asv(tmp_path / "store", tmp_path / "out").notes
    assert notes[:2] == ("1 runs of a changed tree left out", "1 runs without a commit left out")
    assert notes[2].startswith(f"left out: {tmp_path}/store/runs/x.parquet: ")
    write(replace(good, dirty=True), tmp_path / "other")
    with pytest.raises(InputError) as problem:
        export.asv(tmp_path / "other", tmp_path / "out2")
    assert str(problem.value) == (
        "export: no run of a clean commit in this store (1 runs of a changed tree left out)"
    )
    assert not (tmp_path / "out2").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_an_export_replaces_nothing(tmp_path: Path) -> None:
    record([ASV], tmp_path / "store")
    out = tmp_path / "out"
    out.mkdir()
    export.asv(tmp_path / "store", out)
    with pytest.raises(InputError) as problem:
        export.asv(tmp_path / "store", out)
    assert str(problem.value) == f"{out}: expected no such file, or an empty folder"


def test_csv_holds_every_sample_and_every_failure(tmp_path: Path) -> None:
    record([DATA], tmp_path / "store")
    assert export.csv(tmp_path / "store", tmp_path / "out.csv") == ()
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    counts = sql(tmp_path / "store", "SELECT sum(greatest(len(samples), 1))::INT FROM measurements")
    assert counts.rows == [(len(rows),)]
    plain = [row for row in rows if row["benchmark"] == "suite.time_plain"]
    assert [float(row["sample"]) for row in plain] == [
        1.0216669276511918e-06,
        6.709997251164168e-07,
    ]
    assert plain[0]["date"] == "2026-11-23T08:04:04Z"
    failed = [row for row in rows if row["status"] == "failed"]
    assert {row["sample"] for row in failed} == {""}
    grid = [row for row in failed if row["benchmark"] == "suite.Grid.time_sum"]
    assert json.loads(grid[0]["params"]) == {"spec": "bsr:block=32x32,sparsity=0.9", "n": "1000"}


def test_csv_keeps_the_order_of_samples_whatever_thread_writes_first(tmp_path: Path) -> None:
    samples = (3.0, 1.0, 2.0)
    figures = tuple(
        Measurement(Key(name, (("n", str(n)),)), samples)
        for name in ("b.time", "a.time")
        for n in (2, 1)
    )
    days = [f"2026-01-{day:02}" for day in range(1, 9)]
    for day in days:
        run = Run("asv", "c" * 40, False, f"{day}T00:00:00+00:00", "m", {}, figures)
        write(run, tmp_path / "store")
    expected = [
        (day, name, f'{{"n":"{n}"}}', sample)
        for day, name, n, sample in itertools.product(days, ("a.time", "b.time"), "12", samples)
    ]
    for _ in range(20):
        export.csv(tmp_path / "store", tmp_path / "out.csv")
        with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [
            (row["date"][:10], row["benchmark"], row["params"], float(row["sample"]))
            for row in rows
        ] == expected


def test_export_command(tmp_path: Path) -> None:
    record([ASV], tmp_path / "store")
    out = tmp_path / "out"
    done = CliRunner().invoke(app(), ["export", "asv", str(tmp_path / "store"), str(out)])
    assert (done.exit_code, done.stdout) == (0, f"{out}: 1 commits, 6 benchmarks\n")
    table = tmp_path / "out.csv"
    done = CliRunner().invoke(app(), ["export", "csv", str(tmp_path / "store"), str(table)])
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{table}: written\n", "")
    assert table.read_text("utf-8").count("\n") == 18  # a header, 13 samples, 4 without


MACHINES = ["..", ".", "/etc", "a/../../b", "a b", "a_b", "a%20b", "é", "x" * 300, "x" * 301, "M"]


def test_a_machine_is_a_folder_of_its_own_inside(tmp_path: Path) -> None:
    out = tmp_path / "deep/out"
    for machine in MACHINES:
        run = replace(a_run("a" * 40, 1, figure("k", "n", 1.0)), machine=machine)
        write(replace(run, environment={"env_name": f"{machine}/../.."}), tmp_path / "store")
    export.asv(tmp_path / "store", out)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "store"]
    folders = [path for path in out.iterdir() if path.is_dir()]
    assert sorted(load(folder / "machine.json")["machine"] for folder in folders) == sorted(
        MACHINES
    )
    for folder in folders:
        (file,) = [path for path in folder.iterdir() if path.name != "machine.json"]
        assert load(file)["params"]["machine"] == load(folder / "machine.json")["machine"]
    assert (out / "a%20b").is_dir()
    assert (out / "a_b").is_dir()


def test_environments_and_commits_that_are_called_alike_have_files_of_their_own(
    tmp_path: Path,
) -> None:
    commits = ["a" * 40, "a" * 39 + "b"]
    names = ["e 1", "e_1", "e" * 127 + " ", "e" * 128, "e" * 127 + "f"]
    for commit, name in itertools.product(commits, names):
        run = a_run(commit, 1, figure("k", "n", 1.0))
        write(replace(run, environment={"env_name": name}), tmp_path / "store")
    export.asv(tmp_path / "store", tmp_path / "out")
    found = [load(p) for p in (tmp_path / "out/m").iterdir() if p.name != "machine.json"]
    assert sorted((file["commit_hash"], file["env_name"]) for file in found) == sorted(
        itertools.product(commits, names)
    )


def versioned(commit: str, day: int, version: str, *samples: float) -> Run:
    measured = figure("k", "n", *samples)
    key = replace(measured.key, version=version)
    return a_run(commit, day, replace(measured, key=key))


def test_versions_are_the_benchmark_s_own_and_are_not_mixed(tmp_path: Path) -> None:
    for run in (
        versioned("a" * 40, 1, "1", 1.0),
        versioned("b" * 40, 2, "1", 2.0),
        versioned("b" * 40, 3, "2", 20.0),
        versioned("c" * 40, 4, "", 5.0),
        versioned("d" * 40, 5, "2", 21.0, 23.0),
    ):
        write(run, tmp_path / "store")
    export.asv(tmp_path / "store", tmp_path / "out")
    assert load(tmp_path / "out/benchmarks.json")["k.n"]["version"] == "2"
    rows = {
        path.name[0]: values(load(path), "k.n")
        for path in (tmp_path / "out/m").iterdir()
        if path.name != "machine.json"
    }
    assert {commit: row[0] for commit, row in rows.items()} == {
        "a": [1.0],
        "b": [20.0],
        "c": [5.0],
        "d": [22.0],
    }
    versions = {commit: row[2] for commit, row in rows.items()}
    assert (versions["a"], versions["b"], versions["d"]) == ("1", "2", "2")
    assert versions["c"] not in ("", "1", "2")


def test_a_benchmark_without_a_version_has_the_same_one_everywhere(tmp_path: Path) -> None:
    for day, commit in enumerate("ab", 1):
        write(versioned(commit * 40, day, "", 1.0), tmp_path / "store")
    export.asv(tmp_path / "store", tmp_path / "out")
    version = load(tmp_path / "out/benchmarks.json")["k.n"]["version"]
    for commit in "ab":
        file = load(tmp_path / f"out/m/{commit * 8}-actprune-py3.11.json")
        assert values(file, "k.n")[2] == version
