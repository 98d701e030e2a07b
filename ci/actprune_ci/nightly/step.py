"""One command, with a time limit and a log.

Whatever a step started is ended with it (actprune_common.processes).
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from actprune_common import processes

GRACE = 30.0
"""Seconds between asking a step to end and ending it."""
TAIL = 2000


@dataclass(frozen=True)
class Ended:
    """How a step ended."""

    code: int | None
    """None where it could not be started."""
    seconds: float
    reason: str
    """Nothing where it ended by itself with an exit code."""
    tail: str
    """The end of what it said."""
    notes: tuple[str, ...] = ()


@dataclass
class _Log:
    """What a step says: into a file as long as the disk takes it, and its end in memory."""

    path: Path
    tail: bytes = b""
    problem: str = ""

    def pump(self, source: IO[bytes]) -> None:
        """Take what comes until the source is closed."""
        self._write(b"")
        with suppress(ValueError, OSError):  # closed meanwhile
            while part := os.read(source.fileno(), 1 << 16):
                self.tail = (self.tail + part)[-TAIL:]
                if not self.problem:
                    self._write(part)

    def _write(self, part: bytes) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write(part)
        except OSError as problem:
            self.problem = f"{self.path.name}: the log cannot be written: {problem.strerror}"


def run(
    words: Sequence[str], log: Path, timeout: float, cwd: Path, environment: Mapping[str, str]
) -> Ended:
    """Run a command to its end, or to its time limit. Ctrl-C ends it and goes on its way.

    The night's mark in the environment tells what it started.
    """
    began, said, reason = time.monotonic(), _Log(log), ""
    process: subprocess.Popen[bytes] | None = None
    try:  # all of it: Ctrl-C may come between the start and the wait
        process = processes.start(
            words,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        source: IO[bytes] = process.stdout
        pump = threading.Thread(target=said.pump, args=(source,), daemon=True)
        pump.start()
        process.wait(timeout)
    except OSError as problem:
        return Ended(None, 0.0, f"{words[0]}: cannot be run: {problem.strerror}", "")
    except subprocess.TimeoutExpired:
        assert process is not None
        reason = f"ended after its time limit of {timeout:g} s"
        processes.ask_to_end(process)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    finally:
        processes.end_all(
            None if process is None else process.pid, environment[processes.MARK], GRACE
        )
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    pump.join(GRACE)
    if not pump.is_alive():
        source.close()
    seconds, tail = round(time.monotonic() - began, 3), said.tail.decode("utf-8", "replace")
    notes = (said.problem,) if said.problem else ()
    return Ended(process.returncode, seconds, reason or _signalled(process.returncode), tail, notes)


def _signalled(code: int | None) -> str:
    """What ended a process that did not end by itself."""
    if code is None:
        return "could not be ended: stuck in the kernel or a driver"
    number = -code if code < 0 else code - 128 if code > 128 else 0
    if number == signal.SIGKILL:
        return "killed by SIGKILL, as a rule because memory ran out"
    try:
        return f"killed by {signal.Signals(number).name}" if number else ""
    except ValueError:
        return ""
