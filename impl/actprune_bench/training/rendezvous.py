"""The rendezvous of a run's ranks: a store at MASTER_ADDR:MASTER_PORT, found with patience."""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.pool import ThreadPool
from typing import TypeVar

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from actprune_common.errors import InputError

T = TypeVar("T")
PATIENCE = "ACTPRUNE_RENDEZVOUS_SECONDS"
_PATIENCE = 30.0
_GRACE = 1.0  # seconds that torch's own error, which says more than ours, may be late
_SILENCE = 0.2  # seconds after which one that has not spoken may be a store


def shared_store(rank: int, size: int, restarts: int) -> Store:
    """The store that all ranks have come to.

    Raises InputError within ACTPRUNE_RENDEZVOUS_SECONDS (30), and two, where the store does
    not answer, and, naming them, where ranks do not come.
    """
    seconds = _patience()
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    place += f" within {seconds:g} s ({PATIENCE})"
    end = time.monotonic() + seconds
    # torchrun's store outlives a restart: the addresses of the dead in it would be taken for ours
    ours = f"actprune/{restarts}/{size}"
    try:
        store = _by(end, lambda: _found(rank, end))
        store = dist.PrefixStore(ours, store)  # type: ignore[attr-defined]
        absent = _by(end, lambda: _absent(store, rank, size, end))
    except (dist.DistError, OSError, ValueError) as problem:
        what = f"the {size} ranks to meet at {place}"
        raise InputError(f"MASTER_ADDR: expected {what}, got: {first_line(problem)}") from None
    if absent:
        missing = ", ".join(absent)
        raise InputError(f"WORLD_SIZE: expected {size} ranks at {place}; missing: {missing}")
    return store


def _found(rank: int, end: float) -> Store:
    """The store at the master's address, which rank 0 keeps unless torchrun does."""
    if rank > 0 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        _await_answer(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), end)
    store: Store
    store, _, _ = next(rendezvous("env://", timeout=_until(end)))
    return store


def _absent(store: Store, rank: int, size: int, end: float) -> Sequence[str]:
    """Check in, wait for the others, and return those that have not come."""
    keys = [str(each) for each in range(size)]
    store.set(keys[rank], "here")
    try:
        store.wait(keys, _until(end))
    except dist.DistStoreError:
        return [key for key in keys if not store.check([key])]
    return ()


def _by(end: float, work: Callable[[], T]) -> T:
    """work(), or TimeoutError when it is late.

    It is left behind in its thread then: torch's client waits without end for what does not answer,
    whatever its timeout. The thread does not keep the process.
    """
    pool = ThreadPool(1)
    made = pool.apply_async(work)
    pool.close()
    try:
        return made.get(max(0.0, end - time.monotonic()) + _GRACE)
    except multiprocessing.TimeoutError:
        late = "something listens there, but does not answer as the ranks' store does"
        raise TimeoutError(late) from None


def _await_answer(host: str, port: int, end: float) -> None:
    """Return when what may be a store listens there; torch itself waits with pages of warnings.

    A store does not speak first, nor does it hang up.
    """
    while True:
        try:
            left = max(0.1, end - time.monotonic())
            with socket.create_connection((host, port), timeout=left) as peer:
                peer.settimeout(_SILENCE)
                try:
                    peer.recv(1)
                except TimeoutError:
                    return
            raise ConnectionError("something listens there, but it is not the ranks' store")
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def _until(end: float) -> timedelta:
    """What is left of the patience; a second at least, for one whose turn comes last."""
    return timedelta(seconds=max(1.0, end - time.monotonic()))


def first_line(problem: Exception) -> str:
    """Of what it says: torch adds a C++ trace."""
    return next(iter(str(problem).splitlines()), "")[:160]


def _patience() -> float:
    text = os.environ.get(PATIENCE, str(_PATIENCE))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= 3600:
        raise InputError(f"{PATIENCE}: expected 1 to 3600 seconds, got {text!r}")
    return seconds
