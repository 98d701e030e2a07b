"""One command, with a process group and a time limit of its own, and a log.

Whatever a step started is ended with it: its process group, and what left that, which is known by
a word in its environment.
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

TOKEN = "ACTPRUNE_NIGHT"
"""In the environment of all that a night starts."""
GRACE = 30.0
"""Seconds between asking a step to end and ending it."""
FIRST_TO_GO = "1000"
"""oom_score_adj: where memory runs out the kernel ends the step, and not the night."""
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
        file: IO[bytes] | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("ab", buffering=0)
        except OSError as problem:
            self.problem = _refused(self.path, problem)
        with suppress(ValueError, OSError):  # closed meanwhile
            while part := os.read(source.fileno(), 1 << 16):
                self.tail = (self.tail + part)[-TAIL:]
                if file is not None and not self.problem:
                    self._write(file, part)
        if file is not None:
            with suppress(OSError):
                file.close()

    def _write(self, file: IO[bytes], part: bytes) -> None:
        try:
            file.write(part)
        except OSError as problem:
            self.problem = _refused(self.path, problem)


def run(
    words: Sequence[str],
    log: Path,
    timeout: float,
    token: str,
    cwd: Path,
    environment: Mapping[str, str],
) -> Ended:
    """Run a command to its end, or to its time limit. Ctrl-C ends it and goes on its way."""
    began, said, reason = time.monotonic(), _Log(log), ""
    process: subprocess.Popen[bytes] | None = None
    try:  # all of it: Ctrl-C may come between the start and the wait
        process = _started(words, cwd, {**environment, TOKEN: token})
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
        _ask_to_end(process)
    finally:
        end_all(None if process is None else process.pid, token)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    pump.join(GRACE)
    if not pump.is_alive():
        source.close()
    seconds, tail = round(time.monotonic() - began, 3), said.tail.decode("utf-8", "replace")
    notes = (said.problem,) if said.problem else ()
    return Ended(process.returncode, seconds, reason or _signalled(process.returncode), tail, notes)


def _started(
    words: Sequence[str], cwd: Path, environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """The process, in a session of its own, and the first to go where memory runs out."""
    process = subprocess.Popen(
        words,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    with suppress(OSError):
        Path(f"/proc/{process.pid}/oom_score_adj").write_text(FIRST_TO_GO, "utf-8")
    return process


def end_all(group: int | None, token: str) -> None:
    """End a process group, and every process whose environment has the token."""
    if group is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    until = time.monotonic() + GRACE  # one that is stuck in a driver cannot be ended
    unseen = 0
    while unseen < 2 and time.monotonic() < until:  # twice: it is empty for the time of an exec
        left = _carrying(token)
        unseen = 0 if left else unseen + 1
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _ask_to_end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and time to write what there is."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)


def _carrying(token: str) -> list[int]:
    """The processes, zombies apart, with the token in their environment (Linux; else none).

    A night within a step has that step's token, a slash, and its own.
    """
    wanted, found = f"{TOKEN}={token}/".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if any((word + b"/").startswith(wanted) for word in path.read_bytes().split(b"\0")):
                found.append(int(path.parent.name))
    return [pid for pid in found if pid != os.getpid()]


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


def _refused(path: Path, problem: OSError) -> str:
    return f"{path.name}: the log cannot be written: {problem.strerror}"
