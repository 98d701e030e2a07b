"""Two processes in lockstep: while one measures, the other waits.

Noise of a machine that lasts longer than a call then falls on both sides alike.
"""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TypeVar

Result = TypeVar("Result")


class AloneError(Exception):
    """The other side never came, or has ended."""


def share_core(seed: int) -> None:
    """Run on one core, the same for both sides: what else runs there then slows both alike."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[seed % len(cores)]})


class Lockstep:
    """One end of the connection between the two sides of a pair."""

    def __init__(self, path: str, side: int, seed: int, patience: float) -> None:
        """Meet the other side at a Unix socket, within `patience` seconds. Raises AloneError.

        side: 0 or 1. seed: equal on both sides; it decides who goes first, turn by turn.
        """
        self._side, self._random = side, Random(seed)
        try:
            self._other = _accepted(path, patience) if side == 0 else _connected(path, patience)
        except OSError as problem:
            raise AloneError(f"the other side did not come: {problem}") from None
        self._other.settimeout(None)

    def close(self) -> None:
        """Leave: the other side, if it waits, is alone."""
        self._other.close()

    def take(self, call: Callable[[], Result]) -> Result:
        """What `call` returns, called while the other side waits. Raises AloneError."""
        first = self._random.getrandbits(1) == self._side
        if not first:
            self._wait()
        result = call()
        self._tell()
        if first:
            self._wait()
        return result

    def _tell(self) -> None:
        try:
            self._other.send(b".")
        except OSError:
            raise AloneError("the other side has ended") from None

    def _wait(self) -> None:
        try:
            said = self._other.recv(1)
        except OSError:
            said = b""
        if not said:
            raise AloneError("the other side has ended")


def _accepted(path: str, patience: float) -> socket.socket:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen()
        door.settimeout(patience)
        try:
            return door.accept()[0]
        finally:
            Path(path).unlink()


def _connected(path: str, patience: float) -> socket.socket:
    ends = time.monotonic() + patience
    while True:
        other = socket.socket(socket.AF_UNIX)
        try:
            other.connect(path)
            return other
        except OSError:
            other.close()
            if time.monotonic() > ends:
                raise
            time.sleep(0.005)
