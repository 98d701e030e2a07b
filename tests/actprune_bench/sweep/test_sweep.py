"""Sweeps: the grid, the limits, and that nothing is lost whatever happens."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from actprune_bench import cli
from actprune_bench.records.environment import environment
from actprune_bench.sweep import attempt as attempting
from actprune_bench.sweep import engine_local
from actprune_bench.sweep import run as sweeping
from actprune_bench.sweep.attempt import Attempt, Limits
from actprune_bench.sweep.cells import (
    Cell,
    Outcome,
    attempts,
    begin,
    cell_id,
    cell_of,
    settle,
    standing,
    to_run,
)
from actprune_bench.sweep.config import Retries, SweepConfig
from actprune_bench.sweep.gather import SweepResult
from actprune_bench.sweep.run import find_config, run_sweep
from actprune_bench.training.config import TrainConfig
from actprune_common import results
from actprune_common.errors import InputError
from actprune_common.strict_yaml import check, load_yaml

CUT = "trained, but not all measured: "
FAKE = Path(__file__).with_name("fake_cell.py")
CLI = """
import functools, json, sys
from actprune_bench import cli
from actprune_bench.sweep import run
run.run_sweep = functools.partial(run.run_sweep, command=json.loads(sys.argv[1]))
sys.argv = ["actprune", *sys.argv[2:]]
cli.main()
"""


def config(**values: Any) -> SweepConfig:
    return check(SweepConfig, {"formats": ["csr:sparsity=0.5"], **values})


def command(folder: Path, plan: Mapping[str, Sequence[Any]]) -> list[str]:
    """The fake cell, which does for each id what `plan` says."""
    path = folder / "plan.json"
    path.write_text(json.dumps({"environment": environment("test"), "cells": plan}))
    return [sys.executable, "-ISE", str(FAKE), str(path)]


def sweep(
    chosen: SweepConfig, folder: Path, plan: Mapping[str, Sequence[Any]], **options: Any
) -> SweepResult:
    out = folder / "out"
    words = command(folder, plan)
    with (folder / "seen.txt").open("a") as seen:
        quiet = Console(file=seen, width=200)
        return run_sweep(chosen, out, words="w", console=quiet, command=words, **options)


def starts(folder: Path) -> Counter[str]:
    """How often the process of each cell was started."""
    path = folder / "starts.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter(line.split()[0] for line in lines)


def pids(folder: Path) -> list[int]:
    return [int(line.split()[2]) for line in (folder / "starts.txt").read_text().splitlines()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state != b"Z"


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("waited for a minute")


def files(folder: Path) -> dict[Path, bytes]:
    """What a sweep's folder holds."""
    return {path: path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}


def outcomes(folder: Path, identity: str) -> list[str]:
    return [each.outcome for each in attempts(folder / "out/cells" / identity)]


# the grid


def test_the_grid_fills_templates_with_what_they_have_holes_for() -> None:
    chosen = config(
        formats=["bsr:block={block},sparsity={sparsity}", "coo:sparsity={sparsity}", "bitmap"],
        sparsities=[0.5, 0.9],
        blocks=["1x32", 8],
        seeds=[0, 1],
    )
    assert chosen.specs() == [
        "dense",
        "bsr:block=1x32,sparsity=0.5",
        "bsr:block=8x8,sparsity=0.5",
        "bsr:block=1x32,sparsity=0.9",
        "bsr:block=8x8,sparsity=0.9",
        "coo:sparsity=0.5",
        "coo:sparsity=0.9",
        check(TrainConfig, {"spec": "bitmap"}).spec,
    ]
    cells = chosen.cells()
    assert [(c.seed, c.spec) for c in cells] == [(s, t) for s in (0, 1) for t in chosen.specs()]


def test_cells_that_are_the_same_fall_together() -> None:
    chosen = config(
        formats=["dense", "bsr:sparsity=0.9,block=32", "bsr:block=32x32,sparsity=0.9"],
        seeds=[1, 1],
        models=["resmlp_tiny", "resmlp_tiny"],
        data=["embedded", "embedded"],
    )
    assert [c.spec for c in chosen.cells()] == ["dense", "bsr:block=32x32,sparsity=0.9"]


def test_every_model_and_data_has_dense_for_each_seed() -> None:
    chosen = config(models=["resmlp_tiny", "resmlp_s12"], data=["embedded", "cifar10:X"], seeds=[3])
    dense = [(c.model, c.data, c.seed) for c in chosen.cells() if c.spec == "dense"]
    models, data = ("resmlp_tiny", "resmlp_s12"), ("embedded", "cifar10:X")
    assert dense == [(model, source, 3) for model in models for source in data]


def test_training_keys_are_common_to_all_cells() -> None:
    cells = config(training={"epochs": 7, "lr": 1e-3, "include": ["*.fc1"]}).cells()
    assert {(c.epochs, c.lr, c.include) for c in cells} == {(7, 1e-3, ("*.fc1",))}


@given(st.permutations(sorted(TrainConfig().model_dump())))
def test_ids_are_stable_under_key_order(keys: list[str]) -> None:
    values = TrainConfig(spec="csr:sparsity=0.5", lr=1e-3).model_dump()
    again = check(TrainConfig, {key: values[key] for key in keys})
    assert cell_id(again) == cell_id(TrainConfig(spec="csr:sparsity=0.5", lr=1e-3))


def test_ids_tell_cells_apart_and_equal_specs_do_not() -> None:
    cells = config(formats=["csr:sparsity=0.5", "coo"], seeds=[0, 1]).cells()
    assert len({cell_id(each) for each in cells}) == len(cells) == 6
    one, other = TrainConfig(spec="bsr:block=32"), TrainConfig(spec="bsr:block=32x32")
    assert cell_id(one) == cell_id(other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: [0]", "1: formats: this key is required"),
        ("formats: []", "1: formats: List should have at least 1 item after validation, not 0"),
        ("formats: [ell]", "1: formats: ell: spec: expected a format of dense, "),
        (
            "formats: ['csr:sparsity={sparsity}']",
            r"1: sparsities: expected at least one for {sparsity} in 'csr:sparsity={sparsity}'",
        ),
        (
            "formats: [csr]\nsparsities: [0.5]",
            r"1: sparsities: no format has {sparsity} in it; remove sparsities, or use it",
        ),
        (
            "formats: ['bsr:block={block}']",
            r"1: blocks: expected at least one for {block} in 'bsr:block={block}'",
        ),
        (
            "formats: ['csr:sparsity={s}']",
            r"1: formats: {sparsity} and {block} may stand in a format, got {s} in 'csr:spars",
        ),
        (
            "formats: ['csr:sparsity={sparsity}']\nsparsities: [1.5]",
            "1: formats: csr:sparsity=1.5: sparsity: expected 0 <= s < 1, got 1.5",
        ),
        ("formats: [csr]\nepochs: 3", "2: epochs: unknown key; known are formats, sparsities, "),
        ("formats: [csr]\ntraining:\n  epoch: 3", "3: training.epoch: unknown key; known are "),
        ("formats: [csr]\ntraining:\n  seed: 3", "2: training: seed: stands in seeds, beside tr"),
        ("formats: [csr]\ntraining:\n  spec: csr", "2: training: spec: stands in formats, beside"),
        ("formats: [csr]\nseeds: []", "2: seeds: List should have at least 1 item"),
        ("formats: [csr]\nseeds: [-1]", "2: seeds[0]: expected greater than or equal to 0, got -1"),
        ("formats: [csr]\nmodels: [vgg]", "2: models: expected some of resmlp_"),
        ("formats: [csr]\ndata: [mnist]", "2: data: expected one of embedded, fashion-mnist:PATH"),
        ("formats: [csr]\ntimeout_s: 0", "2: timeout_s: expected greater than 0, got 0"),
        ("formats: [csr]\nmemory: much", "2: memory: expected a size such as 4GiB or 800MB, got '"),
        ("formats: [csr]\nmemory: -4GiB", "2: memory: expected a size such as 4GiB or 800MB, got "),
        ("formats: [csr]\nretries: {crashed: 1}", "2: retries.crashed: unknown key; known are fa"),
        ("formats: [csr]\nretries: {failed: -1}", "2: retries.failed: expected greater than or"),
        ("formats: [csr]\naccepted: [done]", "2: accepted[0]: expected 'failed', 'timeout', 'mem"),
    ],
)
def test_a_bad_file_is_told_by_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(text + "\n")
    with pytest.raises(InputError) as caught:
        load_yaml(path, SweepConfig)
    assert str(caught.value).startswith(f"{path}:{message}")


def test_memory_is_read_as_people_write_it() -> None:
    assert config(memory="4GiB").memory_bytes == 4 << 30
    assert config(memory="800MB").memory_bytes == 800_000_000
    assert config().memory_bytes is None


def test_the_example_is_a_sweep() -> None:
    path = Path(__file__).parents[3] / "benchmarks/configs/sweep.yaml"
    assert len(load_yaml(path, SweepConfig).cells()) == 3 * (1 + 4 * 2 + 4)


# what is run again

KINDS = ("done", "failed", "timeout", "memory", "lost", "stopped")


@given(st.lists(st.sampled_from(KINDS)))
def test_a_done_cell_is_never_run_again(kinds: list[str]) -> None:
    tried = [Outcome(kind) for kind in kinds]
    most = Retries(failed=1000, timeout=1000, memory=1000, lost=1000)
    assert to_run(tried, most) == ("done" not in kinds)


@given(st.sampled_from(KINDS[1:5]), st.integers(0, 5), st.lists(st.just(Outcome("stopped"))))
def test_retries_count_each_kind_and_stops_do_not_count(
    kind: str, allowed: int, stops: list[Outcome]
) -> None:
    retries = Retries(**{kind: allowed})
    for count in range(allowed + 3):
        tried = [*stops, *[Outcome(kind)] * count, *stops]
        assert to_run(tried, retries) == (count <= allowed)


def test_what_has_not_ended_is_called_lost(tmp_path: Path) -> None:
    cell = cell_of(TrainConfig(), tmp_path)
    cell.prepare()
    begin(cell.folder)
    settle(cell.folder, "gone")
    settle(cell.folder, "gone again")
    assert attempts(cell.folder) == [Outcome("lost", "gone", log="0001.log")]
    assert begin(cell.folder).name == "0002.log"


def test_a_damaged_attempt_is_named(tmp_path: Path) -> None:
    cell = cell_of(TrainConfig(), tmp_path)
    cell.prepare()
    path = cell.folder / "attempts/0001.json"
    path.write_text('{"outcome": ')
    with pytest.raises(InputError, match=r"0001.json: not readable \(.*\); remove it"):
        attempts(cell.folder)


# attempts


@pytest.fixture
def one(tmp_path: Path) -> Cell:
    cell = cell_of(TrainConfig(), tmp_path)
    cell.prepare()
    return cell


def ended(attempt: Attempt) -> Outcome:
    while (outcome := attempt.poll()) is None:
        time.sleep(0.02)
    return outcome


@pytest.mark.parametrize(
    ("act", "outcome", "code", "message"),
    [
        ("ok", "done", 0, ""),
        ("crash", "failed", 1, "exit code 1\nthe injected crash"),
        ("silent", "failed", 0, "ended well, but left no record.json"),
        ("oom", "memory", 1, "out of memory, it says\n"),
        ("sigkill", "memory", -9, "killed from outside, as the kernel does out of memory"),
        ("eat", "memory", -9, "over its limit of memory: "),
        ("trained-eat", "done", -9, f"{CUT}over its limit of memory: "),
        ("trained-sigkill", "done", -9, f"{CUT}killed from outside, as the kernel does"),
        ("trained-oom", "done", 1, f"{CUT}out of memory, it says"),
        ("trained-crash", "failed", 1, "exit code 1\nthe injected crash"),
    ],
)
def test_what_an_attempt_came_to(
    act: str, outcome: str, code: int, message: str, one: Cell, tmp_path: Path
) -> None:
    limits = Limits(timeout_s=60, memory_bytes=150 << 20)
    found = ended(Attempt(one.folder, limits, command(tmp_path, {one.id: [act]})))
    assert (found.outcome, found.exit_code) == (outcome, code)
    assert found.message.startswith(message)
    assert attempts(one.folder) == [found]


def test_a_limit_of_time_leaves_a_trained_cell_its_record(one: Cell, tmp_path: Path) -> None:
    words = command(tmp_path, {one.id: ["trained-hang"]})
    attempt = Attempt(one.folder, Limits(timeout_s=3600), words)
    wait_until(lambda: (one.folder / "record.json").exists())
    attempt.limits = Limits(timeout_s=0.001)
    found = ended(attempt)
    assert (found.outcome, found.message) == ("done", f"{CUT}over its limit of 0.001 s")


def test_a_stop_leaves_what_is_to_be_measured(one: Cell, tmp_path: Path) -> None:
    words = command(tmp_path, {one.id: ["trained-hang"]})
    attempt = Attempt(one.folder, Limits(), words)
    wait_until(lambda: (one.folder / "record.json").exists())
    assert attempt.stop(0).outcome == "stopped"


def test_a_hang_is_ended_with_all_that_it_started(one: Cell) -> None:
    code = "import subprocess, sys; print(subprocess.Popen(['sleep', '3600']).pid, flush=True)"
    code += "; import time; time.sleep(3600)"
    attempt = Attempt(one.folder, Limits(timeout_s=1), [sys.executable, "-c", code])
    wait_until(lambda: bool(attempt.log.read_text().strip()))
    found = ended(attempt)
    child = int(attempt.log.read_text())
    assert (found.outcome, found.message.splitlines()[0]) == ("timeout", "over its limit of 1 s")
    wait_until(lambda: not alive(child))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("", ""),
        (
            "exit code 1\nTraceback (most recent call last):\n  x\nKeyError: 3",
            "exit code 1: KeyError: 3",
        ),
        ("over its limit of 3 s\nepoch 7", "over its limit of 3 s"),
        ("gone", "gone"),
    ],
)
def test_why_is_short(message: str, why: str) -> None:
    assert Outcome("failed", message).why == why


def test_a_command_that_is_not_there(one: Cell) -> None:
    found = ended(Attempt(one.folder, Limits(), ["no-such-command"]))
    assert found.outcome == "failed"
    assert "no-such-command: cannot be run (No such file or directory)" in found.message


def test_a_real_cell_goes_on_and_measures_in_the_memory_of_its_training(tmp_path: Path) -> None:
    values = {"limit_train": 200, "limit_test": 20, "batch_size": 8, "checkpoint_every": 1}
    values |= {"epochs": 2, "threads": 1}
    cell = cell_of(check(TrainConfig, values | {"spec": "csr:sparsity=0.5"}), tmp_path)
    cell.prepare()
    attempt = Attempt(cell.folder, Limits())
    wait_until(lambda: (cell.folder / "run/checkpoint.pt").exists())
    attempt.ask_to_stop()
    stopped = attempt.stop(60)
    assert (stopped.outcome, stopped.exit_code) == ("stopped", 128 + signal.SIGTERM)
    attempt, path = Attempt(cell.folder, Limits()), cell.folder / "record.json"
    while not path.exists():
        assert attempt.poll() is None
        time.sleep(0.02)
    training = attempt.peak_bytes
    trained = json.loads(path.read_text())
    found = ended(attempt)
    assert (found.outcome, found.message) == ("done", "")
    assert found.peak_bytes is not None
    assert found.peak_bytes < 1.1 * training
    assert "resumed at step " in attempt.log.read_text()
    record = json.loads(path.read_text())
    for later in ("measured_peak_bytes", "grad_cosine", "layers"):
        assert trained.pop(later) in (None, [])
        assert record[later]
    assert trained.items() <= record.items()
    assert record["measured_peak_bytes"] > 1 << 20
    assert (record["steps"], len(record["step_samples_ms"])) == (50, 50)
    assert record["environment"]["threads"] == 1
    before = path.stat().st_mtime_ns
    assert ended(Attempt(cell.folder, Limits())).outcome == "done"  # it was lost after its end
    assert path.stat().st_mtime_ns == before


# sweeps


def test_results_have_ratios_to_dense_and_a_page(tmp_path: Path) -> None:
    found = sweep(config(seeds=[0, 1]), tmp_path, {})
    assert found.outcomes == {"done": 4}
    made = results.read(tmp_path / "out/results.json")
    assert [(r.spec, r.seed) for r in made.training] == [
        ("dense", 0),
        ("csr:sparsity=0.5", 0),
        ("dense", 1),
        ("csr:sparsity=0.5", 1),
    ]
    assert {round(r.accuracy_delta, 9) for r in made.training} == {0.0, -1.1}
    page = (tmp_path / "out/index.html").read_text()
    assert "not interleaved" in page
    assert "csr" in page
    assert "4 done, 0 failed, 0 running of 4: csr" in (tmp_path / "seen.txt").read_text()


def test_several_models_have_a_page_each(tmp_path: Path) -> None:
    chosen = config(models=["resmlp_tiny", "resmlp_s12"])
    sweep(config(), tmp_path, {})
    assert (tmp_path / "out/index.html").exists()
    found = sweep(chosen, tmp_path, {})  # the grid has grown
    assert found.outcomes == {"done": 4}
    assert set(starts(tmp_path).values()) == {1}
    folders = [page.relative_to(tmp_path / "out") for page in found.results]
    assert folders == [Path(f"{m}-embedded/index.html") for m in chosen.models]
    assert not (tmp_path / "out/index.html").exists()
    for page in found.results:
        made = results.read(page.with_name("results.json"))
        assert [record.spec for record in made.training] == ["dense", "csr:sparsity=0.5"]


def test_without_dense_there_are_no_ratios_and_it_is_said(tmp_path: Path) -> None:
    dense, other = (cell_id(each) for each in config().cells())
    found = sweep(config(retries={"failed": 0}), tmp_path, {dense: ["crash"]})
    assert [(cell.id, end.outcome) for cell, end in found.failed] == [(dense, "failed")]
    assert [cell.id for cell in found.alone] == [other]
    assert not found.results


def test_what_is_not_measured_is_said_and_loses_no_record(tmp_path: Path) -> None:
    cell = cell_id(config().cells()[1])
    found = sweep(config(memory="150MiB"), tmp_path, {cell: ["trained-eat"]})
    assert found.outcomes == {"done": 2}
    assert len(results.read(tmp_path / "out/results.json").training) == 2
    assert f" s ({CUT}over its limit of memory: " in (tmp_path / "seen.txt").read_text()


def test_more_retries_run_failed_cells_again_and_no_others(tmp_path: Path) -> None:
    bad = cell_id(config().cells()[1])
    plan = {bad: ["crash", "crash", "ok"]}
    assert sweep(config(), tmp_path, plan).outcomes == {"done": 1, "failed": 1}
    assert sweep(config(), tmp_path, plan).outcomes == {"done": 1, "failed": 1}
    not_done = results.read(tmp_path / "out/results.json").not_done
    why = "exit code 1: the injected crash"
    assert [(r.spec, r.outcome, r.why) for r in not_done] == [("csr:sparsity=0.5", "failed", why)]
    line = f'<p class="bad">csr:sparsity=0.5, seed 0: failed, {why}</p>'
    assert line in (tmp_path / "out/index.html").read_text()
    assert sweep(config(retries={"failed": 2}), tmp_path, plan).outcomes == {"done": 2}
    assert sorted(starts(tmp_path).values()) == [1, 3]
    assert results.read(tmp_path / "out/results.json").not_done == []
    lines = json.loads((tmp_path / "out/cells.json").read_text())["cells"]
    assert [[a["outcome"] for a in line["attempts"]] for line in lines] == [
        ["done"],
        ["failed", "failed", "done"],
    ]


def test_100_cells_with_crashes_hangs_and_a_kill_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_local, "POLL_S", 0.02)
    monkeypatch.setattr(attempting, "DEATH_S", 0.05)
    chosen = config(
        formats=["csr:sparsity={sparsity}"],
        sparsities=[0.5, 0.8, 0.9],
        seeds=list(range(25)),
        timeout_s=8,
        memory="150MiB",
        retries={"failed": 1, "memory": 1},
    )
    ids = [cell_id(each) for each in chosen.cells()]
    assert len(ids) == 100
    acts: list[list[Any]] = [["crash"], ["crash", "ok"], ["eat", "ok"], ["eat"], ["oom"]]
    acts += [["sigkill", "ok"], ["silent"], [0.3], ["ok"], ["ok"]]
    plan: dict[str, list[Any]] = {each: acts[i % len(acts)] for i, each in enumerate(ids)}
    plan |= {each: ["hang"] for each in ids[9::25]}
    words = command(tmp_path, plan)
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps(chosen.values()))
    line = ["sweep", "--config", str(file), "--out", str(tmp_path / "out"), "--jobs", "6"]
    line = [sys.executable, "-c", CLI, json.dumps(words), *line]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL) as first:
        wait_until(lambda: sum(starts(tmp_path).values()) > 40)
        first.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(map(alive, pids(tmp_path))))  # its cells died with it
    done_before = {each for each in ids if "done" in outcomes(tmp_path, each)}
    started_before = starts(tmp_path)
    assert 5 < len(done_before) < 50

    found = sweep(chosen, tmp_path, plan, jobs=6)
    ends = {each: standing(attempts(tmp_path / "out/cells" / each)) for each in ids}
    for each in ids:
        wanted = {"crash": "failed", "silent": "failed", "hang": "timeout"}
        last = plan[each][-1]
        memory = "memory" if last in ("eat", "oom") else "done"
        end = ends[each]
        assert end is not None
        assert end.outcome == wanted.get(str(last), memory), (plan[each], end)
    again = starts(tmp_path)
    assert all(again[each] == started_before[each] for each in done_before)
    assert all(outcomes(tmp_path, each).count("done") <= 1 for each in ids)
    assert sum(found.outcomes.values()) == 100
    lost = sum(outcomes(tmp_path, each).count("lost") for each in ids)
    assert 1 <= lost <= 6
    recorded = sum(len(outcomes(tmp_path, each)) for each in ids)
    assert recorded - lost <= sum(again.values()) <= recorded  # one may be lost before its start
    for folder in (tmp_path / "out/cells").iterdir():
        assert all(a.with_suffix(".json").exists() for a in (folder / "attempts").glob("*.log"))


def test_one_sweep_at_a_time_in_a_folder(tmp_path: Path) -> None:
    import fcntl

    sweep(config(), tmp_path, {})
    out, before = tmp_path / "out", files(tmp_path)
    with (out / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"out: a sweep is running there"):
            sweep(config(seeds=[7]), tmp_path, {})
    assert files(tmp_path) == before


def test_another_commit_starts_in_another_folder(tmp_path: Path) -> None:
    sweep(config(), tmp_path, {})
    path = tmp_path / "out/environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"torch": "1.0"}))
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"out: is of another torch \(1.0, now .*another folder"):
        sweep(config(seeds=[7]), tmp_path, {})
    assert files(tmp_path) == before
    path.write_text("{")
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"environment.json: not readable"):
        sweep(config(seeds=[7]), tmp_path, {})
    assert files(tmp_path) == before


def test_an_engine_that_refuses_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise InputError("gpus: the injected one")

    monkeypatch.setattr(sweeping, "_engine", refuse)
    with pytest.raises(InputError, match="the injected one"):
        sweep(config(), tmp_path, {})
    assert not (tmp_path / "out").exists()


def test_a_resumed_sweep_takes_the_configuration_that_is_given(tmp_path: Path) -> None:
    sweep(config(), tmp_path, {})
    larger = config(seeds=[0, 1])
    sweep(larger, tmp_path, {})
    assert find_config(tmp_path / "out", None, resume=True) == larger


# the command


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str | Path
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["actprune", "sweep", *map(str, words)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    seen = capsys.readouterr()
    return int(done.value.code or 0), seen.out, seen.err


def test_the_command_ends_with_1_where_cells_failed_and_0_where_that_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = cell_id(config().cells()[1])
    words = command(tmp_path, {bad: ["oom"]})
    patched = functools.partial(run_sweep, command=words)
    monkeypatch.setattr(sweeping, "run_sweep", patched)
    file, out = tmp_path / "s.yaml", tmp_path / "out"
    file.write_text("formats: ['csr:sparsity=0.5']\n")
    code, text, _ = call(monkeypatch, capsys, "--config", file, "--out", out)
    assert code == 1
    assert "2 cells: 1 done, 1 memory" in text
    assert "MemoryError: the injected one" in text
    assert bad in text
    file.write_text("formats: ['csr:sparsity=0.5']\naccepted: [memory]\n")
    code, text, _ = call(monkeypatch, capsys, "--config", file, "--out", out, "--resume")
    assert code == 0
    code, text, _ = call(monkeypatch, capsys, "--out", out, "--resume")  # with what is there
    assert code == 0
    assert set(starts(tmp_path).values()) == {1}


def test_bad_options_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, used = tmp_path / "s.yaml", tmp_path / "used"
    file.write_text("formats: [csr]\n")
    used.mkdir()
    (used / "x").write_text("")
    for words, message in (
        ([], "--config, --out: expected a file, or the folder to --resume in"),
        (["--resume"], "--config, --out: expected a file, or the folder to --resume in"),
        (["--out", tmp_path / "new"], "--config: expected the file of a sweep, got none"),
        (["--config", file, "--engine", "dask"], "--engine: expected local or ray, got 'dask'"),
        (["--config", file, "--address", "x:1"], "--address: expected with --engine ray"),
        (["--config", file, "--out", used], f"{used}: is not empty; --resume goes on there, or"),
        (["--out", used, "--resume"], f"{used}: holds no sweep to resume (no sweep.yaml)"),
        (["--config", tmp_path / "no.yaml"], f"{tmp_path}/no.yaml: cannot be read (No such file"),
    ):
        code, out, err = call(monkeypatch, capsys, *words)
        assert (code, out) == (2, "")
        assert err.startswith(f"actprune: error: {message}")
        assert err.count("\n") == 1
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_and_says_how_to_go_on(number: int, tmp_path: Path) -> None:
    plan: dict[str, list[Any]] = {cell_id(each): [3600, "ok"] for each in config().cells()}
    file, out = tmp_path / "s.yaml", tmp_path / "out"
    file.write_text("formats: ['csr:sparsity=0.5']\n")
    words = [sys.executable, "-c", CLI, json.dumps(command(tmp_path, plan))]
    words += ["sweep", "--config", str(file), "--out", str(out), "--jobs", "2"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: sum(starts(tmp_path).values()) == 2)
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    go_on = f"actprune sweep --out {out} --resume"
    assert err == f"actprune: stopped; what was done is kept: {go_on}\n"
    assert [outcomes(tmp_path, each) for each in plan] == [["stopped"]] * 2
    assert not any(map(alive, pids(tmp_path)))
    assert sweep(config(), tmp_path, plan).outcomes == {"done": 2}
