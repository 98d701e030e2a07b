"""Cells as tasks of a Ray, each of which is still a fresh process under the same limits.

The folder of the sweep must be one that all nodes see. What has been done stands in it alone, so a
task that Ray runs again, since its node was lost, knows what came before it.
"""

import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actprune_bench.sweep import cells
from actprune_bench.sweep.attempt import GRACE_S, POLL_S, Attempt
from actprune_bench.sweep.cells import Cell, Outcome, attempts, running, to_run
from actprune_bench.sweep.engine_local import Work
from actprune_bench.sweep.watch import LiveWatch
from actprune_common.errors import InputError, last_line

ALONE_S = 600.0
"""How long a sweep waits for a node where there is none left on which a cell fits."""
_PORT_S, _INIT_S, _LOOK_S = 5.0, 30.0, 1.0
_QUIET: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}


@dataclass
class Joined:
    """A Ray that is joined, and what each cell gets of it."""

    ray: Any
    cpus: float
    gpus: float
    alone_since: float | None = None
    """Since when no node is left on which a cell fits."""

    def lacks(self) -> str | None:
        """What no node has of what a cell needs, where Ray would wait for one."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if any(all(node.get(key, 0) >= need for key, need in wanted.items()) for node in nodes):
            return None
        most = {key: max((node.get(key, 0) for node in nodes), default=0) for key in wanted}
        need = f"a node with {wanted['CPU']:g} CPUs and {wanted['GPU']:g} GPUs"
        return f"{need}; the nodes have at most {most['CPU']:g} and {most['GPU']:g}"

    def look(self, now: float, watch: LiveWatch) -> None:
        """Say, at `now` in seconds, when no node is left on which a cell fits.

        Raises InputError once there has been none for ALONE_S.
        """
        lacks = self.lacks()
        if lacks is None:
            if self.alone_since is not None:
                watch.say("Ray: there is a node again on which a cell fits")
            self.alone_since = None
        elif self.alone_since is None:
            self.alone_since = now
            watch.say(f"Ray: waits up to {ALONE_S:g} s for {lacks}")
        elif now - self.alone_since > ALONE_S:
            waited = f"waited {ALONE_S:g} s for {lacks}"
            raise InputError(f"Ray: {waited}. What was done is kept; --resume goes on")


@contextmanager
def joined(address: str | None, cpus: float, gpus: float) -> Iterator[Joined]:
    """Join the Ray at `address`, or one that is started here, as long as this lasts.

    Raises InputError without Ray, where nobody answers at the address, and where no node has the
    resources.
    """
    ray = _connect(address)
    try:
        made = Joined(ray, cpus, gpus)
        if lacks := made.lacks():
            raise InputError(f"gpus, training.threads: expected {lacks}")
        yield made
    finally:
        ray.shutdown()


def run_ray(
    joined: Joined, work: Work, watch: LiveWatch, stopping: Sequence[int], *, jobs: int | None
) -> None:
    """Run `work` until all has ended or `stopping` holds something.

    jobs: tasks at a time; without it, Ray holds them all and runs what fits. Raises InputError
    where a node does not see the sweep's folder, and where none has had the resources for
    ALONE_S seconds.
    """
    ray, each = joined.ray, {"num_cpus": joined.cpus, "num_gpus": joined.gpus}
    task = ray.remote(**each, max_retries=work.retries.lost)(_task)
    waiting, flying = deque(work.cells), dict[Any, Cell]()
    jobs = jobs or len(work.cells)
    how, looked = replace(work, cells=()), 0.0  # what a task needs of it
    try:
        while (waiting or flying) and not stopping:
            while waiting and len(flying) < jobs:
                cell = waiting.popleft()
                flying[task.remote(cell.folder, how, Path.cwd())] = cell
            ready, _ = ray.wait(list(flying), num_returns=1, timeout=POLL_S)
            for ref in ready:
                cell = flying.pop(ref)
                outcome = _outcome(ray, ref, cell)
                again = to_run(attempts(cell.folder), work.retries)
                watch.ended(cell, outcome, again=again)
                if again:
                    waiting.append(cell)
            if time.monotonic() > looked + _LOOK_S:
                looked = time.monotonic()
                joined.look(looked, watch)
                watch.running([cell for cell in flying.values() if running(cell.folder)])
    finally:
        for ref in flying:  # those that wait, first: none may take the place of one that stops
            ray.cancel(ref, recursive=False)
        if flying:
            ray.wait(list(flying), num_returns=len(flying), timeout=GRACE_S)


def _outcome(ray: Any, ref: Any, cell: Cell) -> Outcome:
    """What became of a task."""
    try:
        ray.get(ref)
    except ray.exceptions.RayTaskError as problem:  # an error of ours, in the task
        raise problem.cause from None
    except ray.exceptions.RayError as problem:
        reason = " ".join(str(problem).split())[:300]
        if not running(cell.folder):
            cells.begin(cell.folder)  # it may have been lost before it began
        cells.settle(cell.folder, f"Ray: {reason}")
    found = cells.standing(attempts(cell.folder))
    if found is None:
        raise InputError(f"{cell.folder}: a task wrote nothing there; do all nodes see the folder?")
    return found


def _task(folder: Path, work: Work, cwd: Path) -> None:
    """On a node: one attempt, unless the cell is done with."""
    if not (folder / cells.CELL).exists():
        raise InputError(
            f"{folder}: is not there on {socket.gethostname()}; on Ray, a sweep needs a folder "
            "that all nodes see"
        )
    cells.settle(folder, "the Ray worker that ran it is gone")
    if not to_run(attempts(folder), work.retries):
        return
    with suppress(OSError):  # relative paths of data are those of the command
        os.chdir(cwd)
    attempt = Attempt(folder, work.limits, work.command)
    try:
        while attempt.poll() is None:
            time.sleep(POLL_S)
    except KeyboardInterrupt:  # cancelled
        attempt.ask_to_stop()
        attempt.stop(GRACE_S / 2)
        raise


def _connect(address: str | None) -> Any:
    """The module ray, connected. Raises InputError within seconds where that cannot be."""
    try:
        import ray
    except ModuleNotFoundError:
        raise InputError("--engine ray: needs Ray: pip install 'actprune[ray]'") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        ray.init(address="local", include_dashboard=False, **_QUIET)
        return ray
    _check_answers(address)
    ray.init(address=address, **_QUIET)
    return ray


def _check_answers(address: str) -> None:
    """Raises InputError where no Ray answers: ray.init would wait for long, and end the process."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(
            f"--address: expected HOST:PORT, got {address!r}; that is where `ray start --head` "
            "listens (port 6379), and neither auto nor a Ray Client's ray://"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_PORT_S).close()
    except OSError as problem:
        reason = problem.strerror or problem
        raise InputError(f"--address: nobody answers at {address} ({reason})") from None
    code = f"import ray; ray.init(address={address!r}, log_to_driver=False)"
    words = [sys.executable, "-c", code]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_INIT_S, check=False)
        said = last_line(done.stderr, "no output") if done.returncode else None
    except subprocess.TimeoutExpired:
        said = f"no answer of Ray within {_INIT_S:g} s"
    if said is not None:
        raise InputError(f"--address: what answers at {address} is no Ray to join ({said[:200]})")
