"""What a machine's clocks, temperatures and load are, before and after a step."""

import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from actprune_ci.measure import machine

FIELDS = ("name", "clocks.sm", "{reasons}", "temperature.gpu", "power.draw")
NAMES = ("name", "clock_mhz", "slowed_by", "celsius", "watts")
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""What newer and older drivers call the reasons to slow the clock down."""
ANSWER = 20.0
"""Seconds that nvidia-smi may take; with a GPU that fell off the bus it may never answer."""


@dataclass(frozen=True)
class Reading:
    """The machine at a moment."""

    state: machine.State
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


def reading() -> Reading:
    """The machine now."""
    gpus = asked()
    reasons = gpus[0]["slowed_by"] if gpus else None
    state = replace(machine.state(), gpu=reasons, wall=time.time(), monotonic=time.monotonic())
    return Reading(state, os.getloadavg()[0], _frequencies(), gpus)


def lost(expected: int, now: Reading) -> str:
    """That GPUs which are expected are not there; else nothing."""
    if len(now.gpus) >= expected:
        return ""
    return f"device lost: nvidia-smi lists {len(now.gpus)} of {expected} GPUs"


def asked() -> tuple[dict[str, str], ...]:
    """What nvidia-smi says of each GPU; nothing where there is none, or no answer."""
    for reasons in REASONS:
        fields = ",".join(field.format(reasons=reasons) for field in FIELDS)
        words = ("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits")
        lines = [line.split(", ") for line in _said(words).splitlines()]
        gpus = tuple(dict(zip(NAMES, each, strict=True)) for each in lines if len(each) == 5)
        if gpus:
            return gpus
    return ()


def _said(words: Sequence[str]) -> str:
    """The output of a command that answers well and in time, else nothing."""
    try:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return ""
    assert process.stdout is not None
    with process.stdout:
        try:
            said, _ = process.communicate(timeout=ANSWER)
        except subprocess.TimeoutExpired:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # it may be stuck in the driver
                process.wait(1)
            return ""
    return said if process.returncode == 0 else ""


def _frequencies() -> tuple[float, float] | None:
    found = []
    for path in machine.SYSTEM.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"):
        with suppress(OSError, ValueError):
            found.append(round(int(path.read_text("utf-8")) / 1000))
    return (min(found), max(found)) if found else None
