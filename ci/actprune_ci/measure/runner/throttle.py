"""Whether a GPU is slowed down, by NVML: some microseconds a question, so that samples can ask.

Clocks that somebody set, an idle GPU, and one that keeps step with others are not slowed down. A
GPU at its power limit is, but for as long as the same work runs there: its samples count.
"""

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
"""Comes with the driver."""
POWER_CAP = 0x4
SLOWED = 0x8 | 0x20 | 0x40 | 0x80
"""Of nvml.h's nvmlClocksEventReasons (nvmlClocksThrottleReasons of older drivers): samples taken
meanwhile say nothing of the code."""
REASONS = {
    POWER_CAP: "power limit",
    0x8: "hardware slowdown",
    0x20: "too hot (software)",
    0x40: "too hot (hardware)",
    0x80: "power brake",
}
ASKS = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
"""What newer and older drivers call it."""


def told(reasons: int) -> str:
    """Return what slows a GPU down, in words, with the bits."""
    names = [name for bit, name in REASONS.items() if reasons & bit]
    return f"{', '.join(names)} (reasons {reasons:#x})"


class Watch:
    """All GPUs of this machine, as NVML tells of them; none where there is no NVML."""

    def __init__(self, library: Any = None) -> None:
        """library: NVML, or what answers like it; by default the driver's own."""
        self._gpus: list[ctypes.c_void_p] = []
        with suppress(OSError, StopIteration):
            library = library or ctypes.CDLL(LIBRARY)
            self._ask = next(getattr(library, name) for name in ASKS if hasattr(library, name))
            self._gpus = list(_gpus(library))

    def reasons(self) -> int:
        """Return the bits of all that slows down any GPU now, power limits apart."""
        found, said = 0, ctypes.c_ulonglong()
        for gpu in self._gpus:
            if self._ask(gpu, ctypes.byref(said)) == 0:
                found |= said.value
        return found & SLOWED


def _gpus(library: Any) -> Iterator[ctypes.c_void_p]:
    count = ctypes.c_uint()
    if library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return
    for i in range(count.value):
        gpu = ctypes.c_void_p()
        if library.nvmlDeviceGetHandleByIndex_v2(i, ctypes.byref(gpu)) == 0:
            yield gpu
