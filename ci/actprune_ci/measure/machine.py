"""What a machine is, and what it does meanwhile: its fingerprint, clocks, throttling, load."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

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
    gpu: str | None
    """nvidia-smi's reasons to slow the clock down, in hexadecimal; `lost` where it fails."""
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
    slowed_by = seen[0]["slowed_by"] if seen else "lost" if GPUS.is_dir() else None
    counts = _values("cpu[0-9]*/thermal_throttle/core_throttle_count")
    throttled = sum(map(int, counts)) if counts else None
    now, load, mhz = (time.time(), time.monotonic()), os.getloadavg()[0], _frequencies()
    return MachineState(*now, _governors(), throttled, slowed_by, load, mhz, seen)


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
    if before.gpu not in (None, "lost") and after.gpu in (None, "lost"):
        found.append(Note("device-lost", "device lost: nvidia-smi no longer answers"))
    elif after.gpu and _slowed(after.gpu):
        found.append(Note("gpu-throttled", f"the GPU's clock is slowed down (reasons {after.gpu})"))
    return found


def load_note() -> list[Note]:
    """A note where more is running than the machine has cores for, beside a measurement of one."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    text = f"other work on the machine: load {load:.1f} on {cores} cores"
    return [Note("other-work", text)] if load > cores else []


def _slowed(reasons: str) -> bool:
    try:
        return bool(int(reasons, 16) & ~0x1)  # 0x1: the GPU is idle
    except ValueError:
        return False


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
