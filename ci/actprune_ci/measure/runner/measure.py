"""Runs one benchmark in this process, by asv's rules but for what a figure of time is.

After a warm-up the process takes several samples, each of `number` calls after a setup, and the
figure is their median. A plan fixes how many, so that two sides do the same work.
"""

import inspect
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from timeit import Timer
from typing import Any, TypeVar

from .lockstep import Lockstep
from .suite import Benchmark, CannotRunError
from .throttle import Watch

WARM_UP, SAMPLE, SAMPLING = 0.1, 0.01, 0.25
"""Seconds: of warming up, of one sample (both asv's), and about so many of all samples."""
FEWEST, MOST = 3, 25
"""Samples of a process."""
RAW = "from timeit import timeit; print(repr(timeit({stmt!r}, {setup!r}, number={number})))"
Result = TypeVar("Result")
Plan = dict[str, int]
"""warm: calls before the first sample; number: calls of a sample; samples."""


def measure(
    benchmark: Benchmark,
    point: Sequence[Any],
    plan: Plan | None,
    lockstep: Lockstep | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """The figure, with samples and plan if it is a time.

    `slowed` has the places of those samples during which a GPU was slowed down, 0 of what has none.

    With `lockstep`, sample by sample in turn with the other side. Raises CannotRunError where the
    benchmark says so, AloneError where the other side is gone, and whatever the benchmark raises.
    """

    setups, teardowns = benchmark.hooks("setup"), benchmark.hooks("teardown")[::-1]

    def call(hooks: Sequence[Callable[..., Any]]) -> None:
        for hook in hooks:
            hook(*point)

    def renew() -> None:
        call(teardowns)
        call(setups)

    try:
        call(setups)
    except NotImplementedError as problem:
        raise CannotRunError(str(problem) or "not for this machine") from None
    try:
        if benchmark.kind in ("time", "timeraw"):
            return timed(benchmark, point, renew, plan, lockstep, watch)
        value, slowed = watched(watch, lambda: benchmark.function(*point))
        told = peak() if benchmark.kind == "peakmem" else figure(value)
        return {"value": told, "slowed": [0] if slowed else []}
    except NotImplementedError as problem:
        if type(problem).__name__ != "SkipNotImplemented":  # asv_runner's own
            raise
        raise CannotRunError(str(problem) or "not for this machine") from None
    finally:
        call(teardowns)


def watched(watch: Watch | None, call: Callable[[], Result]) -> tuple[Result, bool]:
    """What a call returns, and whether a GPU was slowed down right before or after it."""
    asked = watch.reasons if watch else int
    before, result, after = asked(), call(), asked()
    return result, bool(before | after)


def figure(value: Any) -> float:
    """What a track_ benchmark returned. Raises TypeError; for NaN, as asv, CannotRunError."""
    if hasattr(value, "item"):  # of NumPy or torch
        value = value.item()
    if not isinstance(value, (int, float)) or math.isinf(value):
        raise TypeError(f"expected a finite number, got {value!r:.60}")
    if math.isnan(value):
        raise CannotRunError("its figure is NaN")
    return value


def peak() -> int:
    """Bytes at the high-water mark of this process."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def timed(
    benchmark: Benchmark,
    point: Sequence[Any],
    renew: Callable[[], object],
    plan: Plan | None,
    lockstep: Lockstep | None,
    watch: Watch | None,
) -> dict[str, Any]:
    """Seconds of a call, sample by sample. Without a plan one is made first."""
    clock = benchmark.attribute("timer", time.perf_counter)
    raw = benchmark.kind == "timeraw"

    def take(number: int) -> float:
        if raw:
            return raw_sample(benchmark.function(*point), number)
        return Timer(lambda: benchmark.function(*point), timer=clock).timeit(number)

    def one(number: int) -> tuple[float, bool]:
        renew()
        seconds, slowed = watched(watch, lambda: take(number))
        return seconds / number, slowed

    def in_turn(call: Callable[[int], Result], number: int) -> Result:
        return lockstep.take(lambda: call(number)) if lockstep else call(number)

    if plan is None:
        plan = planned(benchmark, take, renew)
    elif plan["warm"]:
        in_turn(take, plan["warm"])
    samples = [in_turn(one, plan["number"]) for _ in range(plan["samples"])]
    seconds = [each for each, _ in samples]
    slowed = [i for i, (_, slow) in enumerate(samples) if slow]
    return {"value": median(seconds), "samples": seconds, "slowed": slowed, "plan": plan}


def planned(
    benchmark: Benchmark, take: Callable[[int], float], renew: Callable[[], object]
) -> Plan:
    """A plan; warms up meanwhile. `number` is 1 after a setup, as in asv, unless it is given."""
    raw = benchmark.kind == "timeraw"
    given = float(benchmark.attribute("warmup_time", -1))
    ends = time.perf_counter() + (0 if raw else WARM_UP if given < 0 else given)
    took, warm = take(1), 1
    while time.perf_counter() < ends:
        took, warm = min(took, take(1)), warm + 1
    number = int(benchmark.attribute("number", 0))
    if number < 1:
        once = raw or bool(benchmark.hooks("setup"))
        wanted = float(benchmark.attribute("sample_time", SAMPLE))
        number = 1 if once else min(10**7, math.ceil(wanted / max(took, 1e-9)))
    began = time.perf_counter()
    renew()
    whole = time.perf_counter() - began + took * number
    samples = min(MOST, max(FEWEST, int(SAMPLING / max(whole, 1e-9))))
    return {"warm": 0 if raw else warm, "number": number, "samples": samples}


def raw_sample(code: Any, number: int) -> float:
    """Seconds of `number` runs of code (or code and its setup) in a fresh process."""
    stmt, setup = map(inspect.cleandoc, code if isinstance(code, tuple) else (code, ""))
    words = [sys.executable, "-c", RAW.format(stmt=stmt, setup=setup or "pass", number=number)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "no output").splitlines()[-1])
    return float(done.stdout)
