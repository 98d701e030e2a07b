"""How long a call takes: wall clock on a CPU, events from a cold cache on a GPU."""

import time
from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor

Clock = Callable[[Callable[[], object]], float]
"""Runs a call once and returns its milliseconds."""

_FLUSHED_BYTES = 256 * 2**20  # more than the L2 cache of any GPU so far
_HEAD_START_CYCLES = 4_000_000  # about 2 ms: what the host needs to queue a forward and backward


def clock(device: torch.device) -> Clock:
    """The clock of a device."""
    return cuda_clock if device.type == "cuda" else wall_clock


def wall_clock(call: Callable[[], object]) -> float:
    """Milliseconds of wall clock; for what has ended when it returns."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def cuda_clock(call: Callable[[], object]) -> float:
    """Milliseconds of the GPU between two events, L2 cold.

    The GPU spins before the first event until the host has queued everything, so launches are not
    counted; a call that makes the host wait is, with its wait.
    """
    event = partial(torch.cuda.Event, enable_timing=True)
    start, end = event(), event()
    torch.cuda.synchronize()
    _flushed(torch.cuda.current_device()).zero_()
    torch.cuda._sleep(_HEAD_START_CYCLES)  # type: ignore[no-untyped-call]
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


@lru_cache(maxsize=1)
def _flushed(device: int) -> Tensor:
    return torch.empty(_FLUSHED_BYTES, dtype=torch.uint8, device=f"cuda:{device}")
