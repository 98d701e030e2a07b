"""Sweeps on a real Ray of this machine: a node that is killed loses nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from actprune_bench.sweep import engine_ray
from actprune_bench.sweep.attempt import Limits
from actprune_bench.sweep.cells import attempts, cell_id, cell_of
from actprune_bench.sweep.config import Retries, SweepConfig
from actprune_bench.sweep.engine_local import Work
from actprune_bench.sweep.engine_ray import Joined, _connect, _task
from actprune_bench.sweep.run import run_sweep
from actprune_bench.sweep.watch import LiveWatch
from actprune_common.errors import InputError
from tests.actprune_bench.sweep.test_sweep import (
    CLI,
    alive,
    command,
    config,
    files,
    outcomes,
    pids,
    starts,
    sweep,
    wait_until,
)

RAY: Any = ray  # whose types are incomplete
CHOSEN = config(seeds=list(range(8)), memory="1GiB", training={"threads": 1})
IDS = [cell_id(each) for each in CHOSEN.cells()]


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    """A Ray whose head runs nothing, and that soon sees that a node is gone."""
    watchful = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000}
    watchful |= {"health_check_failure_threshold": 5}
    head: dict[str, Any] = {"num_cpus": 0, "include_dashboard": False, "_system_config": watchful}
    made: Any = Cluster(initialize_head=True, head_node_args=head)
    yield made
    made.shutdown()


@pytest.fixture
def cluster(head: Any) -> Iterator[Cluster]:
    """The head, to which a test adds workers."""
    yield head
    RAY.shutdown()
    for node in list(head.worker_nodes):
        head.remove_node(node, allow_graceful=False)


def run(
    folder: Path, plan: dict[str, list[Any]], chosen: SweepConfig = CHOSEN, **options: Any
) -> Any:
    out, words = folder / "out", command(folder, plan)
    with (folder / "seen.txt").open("a") as file:
        quiet = Console(file=file, width=200)
        return run_sweep(
            chosen, out, words="w", console=quiet, engine="ray", command=words, **options
        )


def test_a_node_that_is_killed_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=2)
    doomed = cluster.add_node(num_cpus=2)
    plan: dict[str, list[Any]] = {each: ["wait"] for each in IDS}
    plan[IDS[1]] = ["crash", "ok"]
    plan[IDS[2]] = ["oom"]
    killed: list[int] = []

    def waiting() -> list[int]:
        path = tmp_path / "starts.txt"
        lines = map(str.split, path.read_text().splitlines() if path.exists() else [])
        return [int(pid) for name, _, pid in lines if plan[name] == ["wait"] and alive(int(pid))]

    def kill() -> None:
        # when four that wait take all places, two of them are of the doomed node; none ends before
        wait_until(lambda: len(waiting()) == 4)
        killed.extend(waiting())
        cluster.remove_node(doomed, allow_graceful=False)
        wait_until(lambda: sum(map(alive, killed)) == 2)
        (tmp_path / "go").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    found = run(tmp_path, plan, address=cluster.address)
    killer.join()
    assert len(killed) == 4
    assert found.outcomes == {"done": 15, "memory": 1}
    ends = Counter(each for identity in IDS for each in outcomes(tmp_path, identity))
    assert ends["lost"] == 2
    for identity in IDS:
        kinds = outcomes(tmp_path, identity)
        if "lost" in kinds:  # those that ran there were run again
            assert kinds[-1] == ("memory" if identity == IDS[2] else "done"), kinds
        assert kinds.count("done") == (identity != IDS[2])
        assert starts(tmp_path)[identity] == len(kinds)
    assert outcomes(tmp_path, IDS[1])[-2:] == ["failed", "done"]
    wait_until(lambda: not any(map(alive, pids(tmp_path))))
    before = starts(tmp_path)
    assert run(tmp_path, plan, address=cluster.address).outcomes == found.outcomes
    assert starts(tmp_path) == before


def test_a_signal_stops_what_runs_on_ray(tmp_path: Path) -> None:
    plan: dict[str, list[Any]] = {each: [3600, "ok"] for each in IDS}
    file, out = tmp_path / "s.yaml", tmp_path / "out"
    file.write_text(json.dumps(CHOSEN.values()))
    words = [sys.executable, "-c", CLI, json.dumps(command(tmp_path, plan)), "sweep"]
    words += ["--config", str(file), "--out", str(out), "--engine", "ray", "--jobs", "1"]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, text=True, **pipes) as process:  # on a Ray of its own
        wait_until(lambda: sum(starts(tmp_path).values()) == 1)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    go_on = f"actprune sweep --out {out} --resume"
    assert err.endswith(f"actprune: stopped; what was done is kept: {go_on}\n")
    assert outcomes(tmp_path, IDS[0]) == ["stopped"]
    assert [outcomes(tmp_path, each) for each in IDS[1:]] == [[]] * 15
    wait_until(lambda: not any(map(alive, pids(tmp_path))))


def test_a_node_that_does_not_see_the_folder(tmp_path: Path) -> None:
    work = Work([], Limits(), Retries())
    with pytest.raises(InputError, match=r"gone: is not there on .*, a sweep needs a folder that"):
        _task(tmp_path / "gone", work, tmp_path)


def test_a_cell_that_is_done_is_not_run_by_a_late_task(tmp_path: Path) -> None:
    cell = cell_of(CHOSEN.cells()[0], tmp_path / "out")
    cell.prepare()
    work = Work([], Limits(), Retries(), command(tmp_path, {}))
    for _ in range(2):
        _task(cell.folder, work, tmp_path)
    assert [each.outcome for each in attempts(cell.folder)] == ["done"]
    assert sum(starts(tmp_path).values()) == 1


def test_a_cell_that_fits_no_node_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=1)
    chosen = config(gpus=2, training={"threads": 1})
    with pytest.raises(
        InputError, match=r"expected a node with 1 CPUs and 2 GPUs; the nodes have at most 1 and 0"
    ):
        run(tmp_path, {}, chosen, address=cluster.address)
    assert not (tmp_path / "out").exists()


class Nodes:
    """A Ray of which the test says how many CPUs its only node has."""

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus

    def nodes(self) -> list[dict[str, Any]]:
        lost = {"Alive": False, "Resources": {"CPU": 64.0}}
        return [lost, {"Alive": True, "Resources": {"CPU": float(self.cpus)}}]


def test_a_wait_for_nodes_is_said_once_and_ends(tmp_path: Path) -> None:
    nodes = Nodes(4)
    with (tmp_path / "seen.txt").open("w") as file:
        watch = LiveWatch(Console(file=file, width=200), 0, 0, 0)
        joined = Joined(nodes, 2, 0)
        for now, nodes.cpus in ((0, 4), (1, 1), (2, 1), (600, 1), (601, 4), (700, 0), (1300, 0)):
            joined.look(now, watch)
        with pytest.raises(InputError, match=r"Ray: waited 600 s for a node with .*--resume goes"):
            joined.look(1301, watch)
    waits = "Ray: waits up to 600 s for a node with 2 CPUs and 0 GPUs; the nodes have at most"
    assert (tmp_path / "seen.txt").read_text().splitlines() == [
        f"{waits} 1 and 0",
        "Ray: there is a node again on which a cell fits",
        f"{waits} 0 and 0",
    ]


def test_the_only_worker_that_is_lost_is_waited_for_and_given_up(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_ray, "ALONE_S", 3.0)
    only = cluster.add_node(num_cpus=1)
    chosen = config(training={"threads": 1})
    first, second = (cell_id(each) for each in chosen.cells())
    plan: dict[str, list[Any]] = {second: [3600, "ok"]}

    def kill() -> None:
        wait_until(lambda: starts(tmp_path)[second] == 1)
        cluster.remove_node(only, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(InputError, match=r"Ray: waited 3 s for a node with 1 CPUs and 0 GPUs"):
        run(tmp_path, plan, chosen, address=cluster.address)
    killer.join()
    assert (tmp_path / "seen.txt").read_text().count("Ray: waits up to 3 s") == 1
    cluster.add_node(num_cpus=1)
    assert run(tmp_path, plan, chosen, address=cluster.address).outcomes == {"done": 2}
    assert (outcomes(tmp_path, first), outcomes(tmp_path, second)) == (["done"], ["lost", "done"])


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"--engine ray: needs Ray: pip install 'actprune\[ray\]'"):
        _connect(None)


BAD = ["auto", "local", "host:", ":1", "host:x", "host:70000", "host:0", "ray://host:10001"]


@pytest.mark.parametrize("address", BAD)
def test_an_address_is_host_and_port(address: str) -> None:
    with pytest.raises(
        InputError, match=rf"--address: expected HOST:PORT, got '{address}'; .* nor a Ray Client's"
    ):
        _connect(address)


def test_an_address_that_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as taken:  # and does not listen
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match=f"--address: nobody answers at {address}"):
            run(tmp_path, {}, address=address)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"--address: nobody answers at no-such.invalid:6379"):
        _connect("no-such.invalid:6379")


def test_an_address_that_is_refused_leaves_a_sweep_as_it_was(tmp_path: Path) -> None:
    sweep(config(), tmp_path, {})
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"--address: nobody answers at"):
        run(tmp_path, {}, address="no-such.invalid:6379")
    assert files(tmp_path) == before


def test_an_address_at_which_something_else_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(engine_ray, "_INIT_S", 1.0)
        with pytest.raises(
            InputError, match=rf"at {address} is no Ray to join \(no answer of Ray within 1 s\)"
        ):
            _connect(address)
