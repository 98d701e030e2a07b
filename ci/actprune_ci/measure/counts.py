"""Counts of the instructions and cache misses of a call, by valgrind's callgrind, on a CPU.

For a suite: the standard library is all that this module needs. A process of its own runs under
valgrind; there each call is made ready and warmed up at a fraction of the cost, and only then
counted, alone: what starts and stops the counting are callgrind's client requests, a few machine
instructions that need no compiler. Hardware counters (perf stat) would count what the kernel and a
hypervisor make of it, and differ from processor to processor. valgrind's processor is always the
same one with AVX2, and so is the cache that it simulates.

The arithmetic of a call repeats to the instruction. What varies is memory allocation and the
interpreter's caches, by some hundreds of instructions, so that a figure is the median of several
calls (docs/history.md says how far it repeats).
"""

import ctypes
import gc
import json
import mmap
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from textwrap import indent
from typing import Any

WARM, CALLS = 20, 7
"""Calls before counting, in which the interpreter adapts to the code, and those counted."""
MEMORY = ("--cache-sim=yes", "--I1=32768,8,64", "--D1=32768,8,64", "--LL=8388608,16,64")
"""The caches simulated, whatever this machine has: bytes, ways, bytes of a line."""
MISSES = ("I1mr", "D1mr", "D1mw")
"""Of the first level: instructions, reads, writes."""
FIXED = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
"""valgrind knows no AVX-512."""
PROGRAM = "import sys; sys.path[:] = {path!r}; from {module} import count_here; count_here({job!r})"
_REQUEST = bytes.fromhex(
    "4889f831d2"  # mov rax, rdi; xor edx, edx: the request's words; the answer where none listens
    "48c1c70348c1c70d48c1c73d48c1c733"  # rol rdi by 128 bits in all: valgrind's mark
    "4887db4889d0c3"  # xchg rbx, rbx: ask; mov rax, rdx; ret
)
_ZERO, _TOGGLE, _DUMP, _START, _STOP = (0x43540000 + i for i in (1, 2, 3, 4, 5))
"""Requests of callgrind.h."""
_RUNNING = 0x1001
"""valgrind.h: whether this runs under valgrind."""


@dataclass(frozen=True)
class Counts:
    """What one call executes, or why that is not known."""

    instructions: int = 0
    cache_misses: int = 0
    """Of the first level, instructions and data."""
    skipped: str = ""
    """Why the call cannot be made here (a NotImplementedError of its setup)."""
    failed: str = ""
    """What the call or its setup raised."""

    def figure(self, name: str) -> int:
        """Return a figure by name, for a `track_` benchmark.

        Raises:
            NotImplementedError: the call cannot be made here.
            RuntimeError: it failed.
        """
        if self.skipped:
            raise NotImplementedError(self.skipped)
        if self.failed:
            raise RuntimeError(self.failed)
        return int(getattr(self, name))


def count(
    calls: Mapping[str, tuple[str, str]],
    *,
    path: Iterable[str] | None = None,
    timeout: float = 3600,
) -> dict[str, Counts]:
    """Count what statements execute, all in one process under valgrind.

    Args:
        calls: by name, a statement of Python and its setup, as timeit takes them.
        path: where modules are imported from; this process's by default.
        timeout: seconds for all of them.

    Raises:
        NotImplementedError: here is no valgrind, or no processor that this can ask.
        RuntimeError: the process failed.

    Example:
        >>> count({"sum": ("sum(numbers)", "numbers = list(range(1000))")})  # doctest: +SKIP
        {'sum': Counts(instructions=31034, cache_misses=12, skipped='', failed='')}
    """
    program = available()
    with tempfile.TemporaryDirectory(prefix="actprune-counts-") as name:
        job, dumps = Path(name) / "job.json", Path(name) / "dump"
        job.write_text(json.dumps(list(calls.values())), "utf-8")
        paths = list(sys.path if path is None else path)
        asked = PROGRAM.format(path=paths, module=__name__, job=str(job))
        words = [program, "-q", "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no"]
        words += [*MEMORY, f"--callgrind-out-file={dumps}", sys.executable, "-c", asked]
        environment = {**os.environ, **AVX2, **FIXED}
        try:
            done = subprocess.run(
                words, env=environment, capture_output=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"valgrind: not done after {timeout:g} s") from None
        told = job.with_suffix(".told")
        if done.returncode or not told.exists():
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise RuntimeError(f"valgrind: code {done.returncode}: {' '.join(last)[:300]}")
        outcomes = [Counts(**each) for each in json.loads(told.read_text("utf-8"))]
        found = counted(each.read_text("utf-8", "replace") for each in dumps.parent.glob("dump.*"))
    return {
        call: outcomes[i] if outcomes[i] != Counts() else found[str(i)]
        for i, call in enumerate(calls)
    }


def available() -> str:
    """Return the path of valgrind. Raises NotImplementedError where it or its use is not here."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise NotImplementedError("instructions are counted on Linux with x86-64 alone")
    if (program := shutil.which("valgrind")) is None:
        raise NotImplementedError("valgrind is not installed")
    return program


def counted(dumps: Iterable[str]) -> dict[str, Counts]:
    """Return the figures of callgrind's dumps, by what each call asked them to be named.

    Medians of the calls of a name; those of the call of nothing, named `-`, are taken off.
    """
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for dump in dumps:
        if (trigger := re.search(r"^desc: Trigger: Client Request: (.+)$", dump, re.M)) is None:
            continue  # that of the process's end
        events = re.search(r"^events: (.+)$", dump, re.M)
        totals = re.search(r"^(?:summary|totals): (.+)$", dump, re.M)
        if events is None or totals is None:
            raise RuntimeError(f"callgrind: a dump without totals: {dump[:80]!r}")
        values = dict(zip(events[1].split(), map(int, totals[1].split()), strict=False))
        misses = sum(values.get(name, 0) for name in MISSES)  # zeros at the end are not written
        found[trigger[1]].append((values.get("Ir", 0), misses))
    medians = {
        name: [int(median(figures)) for figures in zip(*pairs, strict=True)]
        for name, pairs in found.items()
    }
    nothing = medians.pop("-", [0, 0])
    return {
        name: Counts(max(0, instructions - nothing[0]), max(0, misses - nothing[1]))
        for name, (instructions, misses) in medians.items()
    }


def count_here(job: str) -> None:
    """Make the calls of a job in this process, under valgrind, and end it."""
    ask = _requests()
    if not ask(_RUNNING):
        raise RuntimeError("expected to run under valgrind")
    gc.disable()
    outcomes: list[dict[str, Any]] = []
    _dump_each(ask, "-", lambda: None)
    for i, (statement, setup) in enumerate(json.loads(Path(job).read_text("utf-8"))):
        outcome = {}
        try:
            _dump_each(ask, str(i), _call(statement, setup))
        except NotImplementedError as problem:
            outcome = {"skipped": str(problem) or "not for this machine"}
        except Exception as problem:
            outcome = {"failed": f"{type(problem).__name__}: {problem}"[:500]}
        outcomes.append(outcome)
    Path(job).with_suffix(".told").write_text(json.dumps(outcomes), "utf-8")
    os._exit(0)  # what libraries do at their end would take long here


def _call(statement: str, setup: str) -> Callable[[], object]:
    space: dict[str, Any] = {}
    exec(setup, space)
    exec("def call():\n" + indent(statement, "    "), space)
    call: Callable[[], object] = space["call"]
    return call


def _dump_each(ask: "Callable[..., int]", name: str, call: Callable[[], object]) -> None:
    """Warm a call up, then have callgrind write down each of several."""
    title = ctypes.create_string_buffer(name.encode())
    for _ in range(WARM):
        call()
    gc.collect()
    gc.freeze()
    ask(_START)
    for _ in range(CALLS):
        ask(_ZERO)
        ask(_TOGGLE)
        call()
        ask(_TOGGLE)
        ask(_DUMP, ctypes.addressof(title))
    ask(_STOP)


def _requests() -> "Callable[..., int]":
    """Return what hands a client request to valgrind and returns its answer."""
    page = mmap.mmap(-1, len(_REQUEST), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_REQUEST)
    place = ctypes.addressof(ctypes.c_char.from_buffer(page))
    enter = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)(place)

    def ask(request: int, word: int = 0, _alive: mmap.mmap = page) -> int:
        words = (ctypes.c_uint64 * 6)(request, word, 0, 0, 0, 0)
        return int(enter(ctypes.addressof(words)))

    return ask
