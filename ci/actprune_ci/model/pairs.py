"""What `actprune-ci ab` measures: the figures of two commits in pairs."""

from collections.abc import Mapping
from dataclasses import dataclass

from actprune_ci.model.notes import Note
from actprune_ci.model.runs import Key, Status

NEW, VANISHED = "new", "vanished"
"""Codes in a pair's `detail`: head alone has the figure, base alone had it."""


@dataclass(frozen=True)
class Pairs:
    """One figure measured alternately for two commits: base[i] and head[i] belong together."""

    key: Key
    base: tuple[float, ...] = ()
    head: tuple[float, ...] = ()
    status: Status = "ok"
    """`skipped` where only one side has the benchmark (detail: NEW or VANISHED) or neither."""
    detail: str = ""
    """One of these codes, or for a reader why it failed or was skipped."""


@dataclass(frozen=True)
class AbRun:
    """The outcome of `actprune-ci ab`: all of one machine, both sides interleaved."""

    base: str
    head: str
    date: str
    machine: str
    environment_base: Mapping[str, str]
    environment_head: Mapping[str, str]
    pairs: tuple[Pairs, ...]
    seconds: float = 0.0
    """Wall clock of the whole run."""
    notes: tuple[Note, ...] = ()
    """What a reader must know: budget used up, throttling seen, a clock that jumped."""
