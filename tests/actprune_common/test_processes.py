"""Child processes: whatever they start, and wherever it went, ends with them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from actprune_common import processes


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pids(path: Path, count: int) -> list[int]:
    """What a command wrote into a file."""
    wait_until(lambda: path.exists() and path.read_text().count("\n") == count)
    return [int(line) for line in path.read_text().split()]


def shell(text: str, folder: Path, **options: Any) -> "subprocess.Popen[bytes]":
    return processes.start(["sh", "-c", text], cwd=folder, **options)


def test_all_that_it_started_is_ended(tmp_path: Path) -> None:
    other = "setsid sh -c 'echo $$ >> pids; exec sleep 600' &"
    process = shell(f"{other} sleep 600 & echo $! >> pids; wait; sleep 600", tmp_path)
    found = pids(tmp_path / "pids", 2)
    assert all(map(alive, found))
    processes.end_all(process.pid)
    assert process.wait(5) == -signal.SIGKILL
    assert not any(map(alive, found))


def test_what_it_left_running_is_ended(tmp_path: Path) -> None:
    process = shell("sleep 600 & echo $! >> pids", tmp_path)
    assert process.wait(5) == 0
    (left,) = pids(tmp_path / "pids", 1)
    processes.end_all(process.pid)
    assert not alive(left)


def test_what_has_left_is_known_by_its_mark(tmp_path: Path) -> None:
    environment = {**os.environ, processes.MARK: "outer/inner"}
    away = "setsid sh -c 'echo $$ >> pids; exec sleep 600' & exit 0"
    process = shell(away, tmp_path, env=environment)
    (left,) = pids(tmp_path / "pids", 1)
    process.wait(5)
    processes.end_all(None, "outer/inn")  # is another's
    assert alive(left)
    processes.end_all(None, "outer")
    assert not alive(left)


def test_it_may_save_what_it_has(tmp_path: Path) -> None:
    process = shell(
        "trap 'echo kept > kept; exit 3' TERM; sleep 600 & echo $$ > pids; wait", tmp_path
    )
    pids(tmp_path / "pids", 1)
    processes.ask_to_end(process)
    assert process.wait(5) == 3
    assert (tmp_path / "kept").read_text() == "kept\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_guarded_one_ends_with_its_parent(tmp_path: Path) -> None:
    code = "import sys, time; from actprune_common import processes; p = processes.start("
    code += "['sh', '-c', 'echo $$ >> pids; exec sleep 600'], guarded=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as parent:
        (child,) = pids(tmp_path / "pids", 1)
        score = Path(f"/proc/{child}/oom_score_adj")
        wait_until(lambda: score.read_text() == "1000\n")
        parent.kill()
    wait_until(lambda: not alive(child))


def test_memory_is_that_of_the_whole_session(tmp_path: Path) -> None:
    code = "import time; x = b'x' * (64 << 20); print(1, flush=True); time.sleep(600)"
    text = f'"{sys.executable}" -c "{code}" > pids & wait'
    process = shell(text, tmp_path)
    pids(tmp_path / "pids", 1)
    assert processes.resident(process.pid) > 64 << 20
    processes.end_all(process.pid)
    process.wait(5)
    assert processes.resident(process.pid) == 0


def test_output_is_of_a_command_that_ends_well_and_in_time() -> None:
    assert processes.output(["echo", "said"], 5) == "said\n"
    assert processes.output(["sh", "-c", "echo said; exit 1"], 5) == ""
    assert processes.output(["sh", "-c", "echo said; sleep 600"], 0.05) == ""
    assert processes.output(["no-such-command"], 5) == ""
