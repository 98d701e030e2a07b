"""The measuring processes: one runner per side, asked one thing at a time."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from actprune_ci.measure import runner
from actprune_ci.measure.checkouts import Side
from actprune_common import processes
from actprune_common.errors import last_line

Answer = dict[str, Any]
START, GRACE = 600.0, 60.0
"""Seconds for a suite to be imported, and beyond a benchmark's own limits for its answer."""


class Server:
    """A runner that measures one side; started when it is first asked, and again if it died."""

    def __init__(self, side: Side, suite: Path, python: str) -> None:
        self.side, self.suite, self.python = side, suite, python
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path()
        self._answers: Connection
        self._starting = self._working = 0.0  # seconds

    def list(self) -> Answer:
        """All benchmarks of the suite, what could not be imported, and the environment."""
        return self._begin({"do": "list"}, GRACE)()

    @property
    def worn(self) -> bool:
        """Whether it has worked four times as long as it took to start: a fresh one is cheap."""
        return self._working >= 4 * self._starting

    def close(self) -> None:
        """End the runner, with what is running in it, and remove its files."""
        process, self._process = self._process, None
        if process is None:
            return
        self._answers.close()
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(5)  # the end of stdin ends it
        except subprocess.TimeoutExpired:
            processes.end_all(process.pid)
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def begin(
        self,
        benchmark: Answer,
        params: tuple[str, ...],
        plan: Answer | None,
        lockstep: Answer | None = None,
    ) -> Callable[[], Answer]:
        """Run one benchmark, as `list` describes it, in a process of its own.

        In lockstep with the other side if told so; what returns waits for the end.
        """
        timeout = benchmark["timeout"] * (2 if lockstep else 1)  # the other's turns are waited for
        cache = benchmark["cache_timeout"]
        request = {"do": "run", "name": benchmark["name"], "params": params, "plan": plan}
        request |= {"timeout": timeout, "cache_timeout": cache, "lockstep": lockstep}
        return self._begin(request, 2 * timeout + cache + GRACE)

    def _begin(self, request: Answer, timeout: float) -> Callable[[], Answer]:
        fresh, began = self._process is None, time.monotonic()
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()

        def answer() -> Answer:
            if fresh:
                ready = self._hear(START)
                if "ready" not in ready:
                    return ready
                self._starting, self._working = ready["ready"], -ready["ready"]
            heard = self._hear(timeout)
            self._working += time.monotonic() - began
            return heard

        return answer

    def _hear(self, timeout: float) -> Answer:
        """What it says next; it is closed where that is nothing."""
        process = self._process
        assert process is not None
        try:
            if self._answers.poll(timeout):
                answer: Answer = json.loads(self._answers.recv_bytes())
                return answer
            processes.end_all(process.pid)
            how = f"gave no answer for {timeout:g} s"
        except (EOFError, OSError):
            how = f"ended with code {process.wait()}"
        said = last_line((self._folder / "log").read_text("utf-8", "replace"), "no output")
        detail = f"the measuring process {how}: {said[:300]}"
        self.close()
        return {"status": "failed", "detail": detail}

    def _start(self) -> subprocess.Popen[bytes]:
        """A fresh runner in a folder that holds the runner's code alone."""
        self._folder = Path(tempfile.mkdtemp(prefix="actprune-run-", dir=self.suite.parents[1]))
        shutil.copytree(
            Path(runner.__file__).parent,
            self._folder / "runner",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        others = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([str(self.side.site), *([others] if others else [])])
        self._answers, theirs = Pipe(duplex=False)
        with (self._folder / "log").open("wb") as log, theirs:
            return processes.start(  # in a session of its own: Ctrl-C is for us
                (self.python, "-m", "runner", str(self.suite)),
                stdin=subprocess.PIPE,
                stdout=theirs,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": path},
            )
