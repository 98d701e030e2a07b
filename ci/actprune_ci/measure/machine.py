"""What a machine is, and what it does meanwhile: its fingerprint, clocks, throttling, load."""

import hashlib
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from actprune_ci.model.notes import Note

SYSTEM = Path("/sys/devices/system/cpu")
GPUS = Path("/proc/driver/nvidia/gpus")
JUMP = 1.0
"""Seconds by which the two clocks may come apart: more than any adjustment of the time of day."""


@dataclass(frozen=True)
class State:
    """The machine at a moment; None where it does not tell."""

    wall: float
    monotonic: float
    governors: tuple[str, ...]
    throttled: int | None
    """Times that the processor was too hot so far."""
    gpu: str | None
    """nvidia-smi's reasons to slow the clock down, in hexadecimal; `lost` where it fails."""


def facts() -> dict[str, str]:
    """The machine, by the names that results.json uses for it; `fingerprint` is its identity."""
    cpu, cores, memory, gpu = _cpu(), os.cpu_count() or 1, _memory(), _gpu()
    identity = f"{cpu}|{cores}|{memory >> 30}|{gpu}|{platform.machine()}"
    known = {
        "fingerprint": hashlib.sha256(identity.encode()).hexdigest()[:12],
        "platform": platform.platform(),
        "cpu": cpu,
        "cores": str(cores),
        "memory_bytes": str(memory),
        "gpu": gpu or "",
        "governor": ", ".join(sorted(set(_governors()))),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
    }
    return {name: value for name, value in known.items() if value}


def state() -> State:
    """The machine now."""
    return State(time.time(), time.monotonic(), _governors(), _throttled(), _gpu_reasons())


def notes(before: State, after: State) -> list[Note]:
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
        slowed = f"the GPU's clock is slowed down (reasons {after.gpu})"
        found.append(Note("gpu-throttled", slowed))
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


def _gpu_reasons() -> str | None:
    if not GPUS.is_dir():
        return None
    words = ("nvidia-smi", "--query-gpu=clocks_throttle_reasons.active", "--format=csv,noheader")
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "lost"
    return done.stdout.split("\n")[0].strip()


def _gpu() -> str | None:
    for path in sorted(GPUS.glob("*/information")):
        return _field(path, "Model")
    return None


def _cpu() -> str:
    return _field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine()


def _field(path: Path, name: str) -> str | None:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _governors() -> tuple[str, ...]:
    return tuple(_values("cpu[0-9]*/cpufreq/scaling_governor"))


def _throttled() -> int | None:
    counts = _values("cpu[0-9]*/thermal_throttle/core_throttle_count")
    return sum(map(int, counts)) if counts else None


def _values(pattern: str) -> list[str]:
    found = []
    for path in sorted(SYSTEM.glob(pattern)):
        try:
            found.append(path.read_text("utf-8").strip())
        except OSError:
            continue
    return found
