"""The server: answers requests about one suite, and measures in forked children."""

import ctypes
import gc
import json
import os
import pickle
import platform
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, NoReturn

from .lockstep import AloneError, Lockstep, share_core
from .measure import measure
from .suite import Benchmark, CannotRunError, discover, told
from .throttle import Watch

PACKAGES = ("torch", "triton", "numpy", "scipy", "cupy-cuda13x")
"""Whose versions are facts of the environment."""
Answer = dict[str, Any]
Job = Callable[[], Answer]


def serve(suite: Path) -> None:
    """Say how many seconds the suite took to import, then answer until stdin ends."""
    began = time.monotonic()
    answers = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # what the suite prints is no answer
    sys.path.insert(0, str(suite.parent))
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
    benchmarks, problems = discover(suite.name)
    caches: dict[Any, Path] = {}
    gc.collect()
    gc.freeze()  # a child that collects garbage need not copy what it inherits
    give_back_memory()
    say(answers, {"ready": time.monotonic() - began})
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "list":
            answer = listed(benchmarks, problems)
        elif request["name"] in benchmarks:
            answer = run(benchmarks[request["name"]], request, caches)
        else:
            answer = {"status": "absent", "detail": "; ".join(problems.values())}
        say(answers, answer)


def give_back_memory() -> None:
    """Free what imports have left on the heap: a child that lives on it has a peak too low."""
    with suppress(OSError, AttributeError):  # glibc alone
        ctypes.CDLL(None).malloc_trim(0)


def say(answers: Connection, answer: Answer) -> None:
    """Write an answer."""
    answers.send_bytes(json.dumps(answer).encode())


def listed(benchmarks: dict[str, Benchmark], problems: dict[str, str]) -> Answer:
    """All benchmarks, what could not be imported, and facts of this process."""
    facts = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            facts[package] = metadata.version(package)
    described = [benchmark.described() for benchmark in benchmarks.values()]
    return {"benchmarks": described, "problems": problems, "facts": facts}


def run(benchmark: Benchmark, request: Answer, caches: dict[Any, Path]) -> Answer:
    """Measure in a child; what setup_cache returns is made in another, once."""
    key = getattr(benchmark.setup_cache, "__func__", benchmark.setup_cache)
    if key and key not in caches:
        path = Path.cwd() / f"cache{len(caches)}.pickle"
        limit = max(request["timeout"], request["cache_timeout"])
        made = forked(lambda: make_cache(benchmark, path), limit)
        if made["status"] != "ok":
            return {**made, "detail": f"setup_cache: {made['detail']}"}
        caches[key] = path

    def job() -> Answer:
        lockstep = None
        if request.get("lockstep"):
            lockstep = Lockstep(**request["lockstep"])
            if benchmark.attribute("threads", 0) == 1:
                share_core(request["lockstep"]["seed"])
        point = benchmark.point(request["params"])
        if key:
            point = (pickle.loads(caches[key].read_bytes()), *point)
        return measure(benchmark, point, request["plan"], lockstep, Watch())

    return forked(job, request["timeout"])


def make_cache(benchmark: Benchmark, path: Path) -> Answer:
    """Write what setup_cache returns; a NotImplementedError in it skips its benchmarks."""
    try:
        path.write_bytes(pickle.dumps(benchmark.setup_cache()))
    except NotImplementedError as problem:
        raise CannotRunError(str(problem) or "not for this machine") from None
    return {}


def forked(job: Job, timeout: float) -> Answer:
    """The answer of a job in a child process, which has ended then with all that it started.

    status: ok, skipped, alone (the other side has gone), or failed, with the reason as
    detail: an exception, a signal, `timeout` seconds over. If stdin ends meanwhile, so do child and
    server.
    """
    reading, writing = Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        reading.close()
        be_child(job, writing)
    writing.close()
    with suppress(OSError):
        os.setpgid(child, child)
    try:
        ready = wait([reading, 0], timeout)
        if ready == [0]:  # between a request and its answer stdin can only end: nobody listens
            sys.exit(1)
        answer: Answer = {"status": "failed", "detail": f"timed out after {timeout:g} s"}
        if ready:
            answer = json.loads(reading.recv_bytes())
    except (EOFError, OSError):  # at its end, or within an answer
        answer = {"status": "failed", "detail": died(os.waitpid(child, 0)[1])}
    finally:
        reading.close()
        with suppress(OSError):  # the child and all that it started
            os.killpg(child, signal.SIGKILL)
    with suppress(ChildProcessError):  # it is known how it died
        os.waitpid(child, 0)
    return answer


def died(status: int) -> str:
    """How a process ended that gave no answer, from its wait status."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"its process ended with code {code}"
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return f"its process died of {signal.Signals(-code).name}{hint}"


def be_child(job: Job, writing: Connection) -> NoReturn:
    """Do the job, write its answer, and end without cleaning up what the parent owns."""
    os.setpgid(0, 0)
    with suppress(OSError):  # of all processes the system should end this one, if memory is short
        Path("/proc/self/oom_score_adj").write_text("1000")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        answer = {"status": "ok", **job()}
    except CannotRunError as reason:
        answer = {"status": "skipped", "detail": str(reason)}
    except AloneError as reason:
        answer = {"status": "alone", "detail": str(reason)}
    except BaseException as problem:
        traceback.print_exc()
        answer = {"status": "failed", "detail": told(problem)}
    sys.stderr.flush()
    say(writing, answer)
    os._exit(0)
