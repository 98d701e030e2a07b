"""One attempt at a cell: a fresh process under limits of time and memory, and what became of it."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actprune_bench.measure.runs import RECORD
from actprune_bench.sweep.cells import DONE, OVER, STOPPED, Outcome, begin, end
from actprune_common import processes

CELL_COMMAND = (sys.executable, "-m", "actprune_bench.sweep.cell")
"""Gets the cell's folder as its last word."""
POLL_S = 0.1
GRACE_S = 20.0
"""For a cell that is asked to stop: a step, and its checkpoint."""
DEATH_S = 0.5
"""Who kills all of a machine may kill a cell before us: then its attempt is lost, not failed."""
_TAIL_LINES, _TAIL_BYTES = 20, 4000
_OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError", "can't allocate memory")


@dataclass(frozen=True)
class Limits:
    """Of one attempt: seconds by the clock, and bytes that its processes have resident."""

    timeout_s: float | None = None
    memory_bytes: int | None = None


class Attempt:
    """A running attempt at the cell in `folder`; `poll` it until it says what became of it."""

    def __init__(self, folder: Path, limits: Limits, command: Sequence[str] = CELL_COMMAND) -> None:
        self.folder, self.limits = folder, limits
        self.log = begin(folder)
        self.started = time.monotonic()
        self.peak_bytes = 0
        with self.log.open("wb") as log:
            self._process = processes.start(
                [*command, str(folder)],
                guarded=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def poll(self) -> Outcome | None:
        """What became of it, written beside its log; None while it runs within its limits."""
        code = self._process.poll()
        if code is not None:
            processes.end_all(self._process.pid)  # what it left running
            if code == -signal.SIGKILL:
                time.sleep(DEATH_S)
            return self._end(*self._verdict(code))
        self.peak_bytes = max(self.peak_bytes, processes.resident(self._process.pid))
        timeout, memory = self.limits.timeout_s, self.limits.memory_bytes
        if memory is not None and self.peak_bytes > memory:
            used = f"{self.peak_bytes / 2**20:,.0f} MiB of {memory / 2**20:,.0f}"
            return self._killed("memory", f"{OVER}memory: {used}")
        if timeout is not None and time.monotonic() - self.started > timeout:
            return self._killed("timeout", f"{OVER}{timeout:g} s")
        return None

    def ask_to_stop(self) -> None:
        """Let it save what it has."""
        processes.ask_to_end(self._process)

    def stop(self, grace: float) -> Outcome:
        """End it, after so many seconds by force; what was done by then is done."""
        try:
            code = self._process.wait(timeout=max(0.0, grace))
        except subprocess.TimeoutExpired:
            return self._killed(STOPPED, "the sweep was stopped")
        processes.end_all(self._process.pid)
        verdict, message = self._verdict(code)
        return self._end(DONE if verdict == DONE else STOPPED, message)

    def _killed(self, outcome: str, why: str) -> Outcome:
        processes.end_all(self._process.pid)
        self._process.wait()
        return self._end(*self._cut(outcome, why))

    def _cut(self, outcome: str, why: str) -> tuple[str, str]:
        """What ended it, which costs only what it measures after its record, if that is there."""
        if outcome != STOPPED and (self.folder / RECORD).exists():
            return DONE, f"trained, but not all measured: {why}"
        return outcome, f"{why}\n{tail(self.log)}"

    def _verdict(self, code: int) -> tuple[str, str]:
        """What an exit code and the last words mean."""
        words = tail(self.log)
        if code == 0:
            if (self.folder / RECORD).exists():
                return DONE, ""
            return "failed", f"ended well, but left no {RECORD}\n{words}"
        if code == -signal.SIGKILL:
            return self._cut("memory", "killed from outside, as the kernel does out of memory")
        last = words.rpartition("\n")[2]
        if any(word in last for word in _OUT_OF_MEMORY):
            return self._cut("memory", "out of memory, it says")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return "failed", f"{how}\n{words}"

    def _end(self, outcome: str, message: str) -> Outcome:
        made = Outcome(
            outcome=outcome,
            message=message.strip(),
            exit_code=self._process.returncode,
            seconds=round(time.monotonic() - self.started, 3),
            peak_bytes=self.peak_bytes or None,
            host=socket.gethostname(),
            log=self.log.name,
        )
        end(self.log, made)
        return made


def tail(log: Path) -> str:
    """The last lines of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])
