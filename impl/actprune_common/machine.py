"""The machine: what it is, and the fingerprint by which results of one machine are known."""

import hashlib
import os
import platform
from pathlib import Path

SAME = ("fingerprint", "commit", "torch")
"""Of an environment: what results must have in common for their ratios to say something."""


def describe(gpu: str | None) -> dict[str, str | int | None]:
    """The machine, by the names that results.json uses for it; `fingerprint` is its identity.

    gpu: the first GPU's name, which whoever asks has from torch or from the driver.
    """
    cpu = field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine()
    cores, memory = os.cpu_count() or 1, _memory_bytes()
    identity = f"{cpu}|{cores}|{memory >> 30}|{gpu}|{platform.machine()}"
    return {
        "fingerprint": hashlib.sha256(identity.encode()).hexdigest()[:12],
        "platform": platform.platform(),
        "cpu": cpu,
        "cores": cores,
        "memory_bytes": memory,
        "gpu": gpu,
    }


def field(path: Path, name: str) -> str | None:
    """The first value of `name: value` in a file of /proc; None without one."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
