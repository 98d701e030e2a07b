"""What a machine is, and what it does meanwhile: its fingerprint, clocks, throttling, load."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from actprune_ci.measure.runner import throttle
from actprune_ci.model.runs import Note
from actprune_common.machine import describe, field
from actprune_common.processes import output

SYSTEM = Path("/sys/devices/system/cpu")
GPUS = Path("/proc/driver/nvidia/gpus")
FIELDS = ("name", "clocks.sm", "{reasons}", "temperature.gpu", "power.draw")
NAMES = ("name", "clock_mhz", "slowed_by", "celsius", "watts")
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""What newer and older drivers call the reasons to slow the clock down."""
ANSWER = 20.0
"""Seconds that nvidia-smi may take; with a GPU that fell off the bus it may never answer."""
JUMP = 1.0
"""Seconds by which the two clocks may come apart: more than any adjustment of the time of day."""
Gpus = tuple[dict[str, str], ...]


@dataclass(frozen=True)
class MachineState:
    """The machine at a moment; None where it does not tell."""

    wall: float
    monotonic: float
    governors: tuple[str, ...]
    throttled: int | None
    """Times that the processor was too hot so far."""
    load: float = 0.0
    """Processes that run or want to, over the last minute."""
    mhz: tuple[float, float] | None = None
    """Of the slowest and of the fastest core."""
    gpus: Gpus = ()
    """What nvidia-smi says of each GPU; none without one, or where it does not answer."""

    @property
    def document(self) -> dict[str, Any]:
        """For JSON."""
        at = datetime.fromtimestamp(self.wall, timezone.utc).isoformat(timespec="seconds")
        known = {"at": at, "load": round(self.load, 2), "mhz": self.mhz, "gpus": self.gpus}
        return {name: value for name, value in known.items() if value not in (None, ())}


def facts() -> dict[str, str]:
    """The machine, by the names that results.json uses for it; `fingerprint` is its identity."""
    gpu = next((field(path, "Model") for path in sorted(GPUS.glob("*/information"))), None)
    known = {
        **describe(gpu),
        "governor": ", ".join(sorted(set(_governors()))),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }
    return {name: str(value) for name, value in known.items() if value}


def state() -> MachineState:
    """The machine now."""
    seen = gpus()
    counts = _values("cpu[0-9]*/thermal_throttle/core_throttle_count")
    throttled = sum(map(int, counts)) if counts else None
    now, load, mhz = (time.time(), time.monotonic()), os.getloadavg()[0], _frequencies()
    return MachineState(*now, _governors(), throttled, load, mhz, seen)


def gpus() -> Gpus:
    """What nvidia-smi says of each GPU; nothing where there is none, or no answer."""
    for reasons in REASONS:
        fields = ",".join(FIELDS).format(reasons=reasons)
        words = ("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits")
        lines = [line.split(", ") for line in output(words, ANSWER).splitlines()]
        if found := tuple(dict(zip(NAMES, each, strict=True)) for each in lines if len(each) == 5):
            return found
    return ()


def missing_gpus(expected: int, now: MachineState) -> str:
    """That GPUs which are expected are not there; else nothing."""
    if len(now.gpus) >= expected:
        return ""
    return f"device lost: nvidia-smi lists {len(now.gpus)} of {expected} GPUs"


def notes(before: MachineState, after: MachineState) -> list[Note]:
    """What happened between two states that a reader of figures must know."""
    found = []
    jump = (after.wall - before.wall) - (after.monotonic - before.monotonic)
    if abs(jump) > JUMP:
        found.append(Note("clock-jumped", f"clock jumped by {jump:+.0f} s"))
    if set(after.governors) - {"performance"}:
        names = ", ".join(sorted(set(after.governors)))
        found.append(Note("slow-governor", f"frequency governor: {names}"))
    if before.throttled is not None and after.throttled is not None:
        times = after.throttled - before.throttled
        if times > 0:
            found.append(Note("processor-throttled", f"the processor was throttled {times} times"))
    lost = len(before.gpus) - len(after.gpus)
    if lost > 0:
        text = f"device lost: nvidia-smi lists {len(after.gpus)} of {len(before.gpus)} GPUs"
        found.append(Note("device-lost", text))
    return [*found, *_slowed(before, after)]


def load_note() -> list[Note]:
    """A note where more is running than the machine has cores for, beside a measurement of one."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    text = f"other work on the machine: load {load:.1f} on {cores} cores"
    return [Note("other-work", text)] if load > cores else []


def _slowed(before: MachineState, after: MachineState) -> Iterator[Note]:
    """A note for each GPU that is slowed down in one of two states; reasons of both together."""
    states = (before.gpus, after.gpus)
    for i in range(max(map(len, states))):
        reasons = 0
        for gpus in states:
            with suppress(ValueError, IndexError):  # `N/A`; a card that is lost
                reasons |= int(gpus[i]["slowed_by"], 16)
        if reasons & throttle.SLOWED:
            yield Note("gpu-throttled", f"GPU {i} is slowed down: {throttle.told(reasons)}")
        elif reasons & throttle.POWER_CAP:
            yield Note("gpu-power-capped", f"GPU {i} is slowed down: {throttle.told(reasons)}")


def _governors() -> tuple[str, ...]:
    return tuple(_values("cpu[0-9]*/cpufreq/scaling_governor"))


def _values(pattern: str) -> list[str]:
    found = []
    for path in sorted(SYSTEM.glob(pattern)):
        with suppress(OSError):
            found.append(path.read_text("utf-8").strip())
    return found


def _frequencies() -> tuple[float, float] | None:
    try:
        found = [round(core.current) for core in psutil.cpu_freq(percpu=True)]
    except (OSError, NotImplementedError):
        return None
    return (min(found), max(found)) if found else None
