"""What a machine's clocks, temperatures and load are, before and after a step."""

import os
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import psutil

from actprune_ci.measure import machine


@dataclass(frozen=True)
class Telemetry:
    """The machine at a moment."""

    state: machine.MachineState
    load: float
    """Processes that run or want to, over the last minute."""
    mhz: tuple[float, float] | None
    """Of the slowest and of the fastest core."""
    gpus: tuple[dict[str, str], ...]
    """What nvidia-smi says of each GPU; none without one, or where it does not answer."""

    @property
    def document(self) -> dict[str, Any]:
        """For JSON."""
        at = datetime.fromtimestamp(self.state.wall, timezone.utc).isoformat(timespec="seconds")
        known = {"at": at, "load": round(self.load, 2), "mhz": self.mhz, "gpus": self.gpus}
        return {name: value for name, value in known.items() if value not in (None, ())}


def read() -> Telemetry:
    """The machine now."""
    gpus = machine.gpus()
    return Telemetry(machine.state(gpus), os.getloadavg()[0], _frequencies(), gpus)


def missing_gpus(expected: int, now: Telemetry) -> str:
    """That GPUs which are expected are not there; else nothing."""
    if len(now.gpus) >= expected:
        return ""
    return f"device lost: nvidia-smi lists {len(now.gpus)} of {expected} GPUs"


def _frequencies() -> tuple[float, float] | None:
    try:
        found = [round(core.current) for core in psutil.cpu_freq(percpu=True)]
    except (OSError, NotImplementedError):
        return None
    return (min(found), max(found)) if found else None
