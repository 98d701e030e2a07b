"""Commands in sessions of their own, ended with all that they started.

What a command started is known by its session, by descent, and by a mark in the environment, which
also tells what has left both.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

MARK = "ACTPRUNE_NIGHT"
"""In the environment of all that a night starts; a night within a step has the step's mark, a
slash, and its own."""
STUCK_S = 30.0
"""How long to try: what is stuck in a driver cannot be ended."""
_FIRST_TO_GO = "1000"
"""oom_score_adj: where memory runs out the kernel ends the command, and not who started it."""
_GUARD = str(Path(__file__).with_name("guard.py"))


def start(
    words: Sequence[str], *, guarded: bool = False, **options: Any
) -> "subprocess.Popen[bytes]":
    """Start a command in a session of its own.

    guarded: it ends when the thread that calls this does, if by SIGKILL (Linux). options: of Popen.
    Raises OSError where it cannot be started; a guarded one says that, and has exit code 1.
    """
    if guarded:
        words = [sys.executable, "-ISE", _GUARD, str(os.getpid()), *words]
    process: subprocess.Popen[bytes] = subprocess.Popen(words, start_new_session=True, **options)
    with suppress(OSError):
        Path(f"/proc/{process.pid}/oom_score_adj").write_text(_FIRST_TO_GO, "utf-8")
    return process


def ask_to_end(process: "subprocess.Popen[bytes]") -> None:
    """Send SIGTERM to a command and to its group: they may save what they have."""
    with suppress(ProcessLookupError, PermissionError):  # macOS: of a group of zombies
        os.killpg(process.pid, signal.SIGTERM)


def end_all(session: int | None, mark: str = "", patience: float = STUCK_S) -> None:
    """Kill a command, by its process id, with all that it started, and all that has the mark."""
    until, unseen = time.monotonic() + patience, 0
    while unseen < (2 if mark else 1) and time.monotonic() < until:
        left = _started(session, mark)
        for each in left:
            with suppress(psutil.Error):
                each.kill()
        unseen = 0 if left else unseen + 1
        if left or mark:  # an environment is empty for the time of an exec: look again
            time.sleep(0.02)


def output(words: Sequence[str], timeout: float) -> str:
    """What a command prints that ends well and in time; else nothing, even if it is stuck."""
    try:
        process = start(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return ""
    assert process.stdout is not None
    with process.stdout:
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            end_all(process.pid, patience=1)
            process.poll()
            return ""
    return said.decode("utf-8", "replace") if process.returncode == 0 else ""


def resident(session: int) -> int:
    """Bytes that the processes of a session have resident."""
    found = 0
    for each in _in_session(session):
        with suppress(psutil.Error):
            found += each.memory_info().rss
    return found


def _in_session(session: int) -> Iterator[psutil.Process]:
    for pid in psutil.pids():
        with suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(pid) == session:
                yield psutil.Process(pid)


def _started(session: int | None, mark: str) -> list[psutil.Process]:
    """What belongs to a session or descends from its leader or has the mark, zombies apart."""
    found: set[psutil.Process] = set()
    if session is not None:
        found.update(_in_session(session))
        with suppress(psutil.Error):
            found.update(psutil.Process(session).children(recursive=True))
    if mark:
        for each in psutil.process_iter(["environ"]):  # None where it may not be read
            if f"{(each.info['environ'] or {}).get(MARK)}/".startswith(f"{mark}/"):
                found.add(each)
    return [each for each in found if each.pid != os.getpid() and _lives(each)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
