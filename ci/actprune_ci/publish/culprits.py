"""What bisections found: culprits.json, and the causes that it narrows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel

from actprune_ci.model.reading import read
from actprune_ci.publish.causes import Cause
from actprune_ci.triage.order import Order


class Culprit(BaseModel):
    """The outcome of one bisection."""

    name: str
    """Of the figure, `benchmark(name=value, ...)`."""
    machine: str
    good: str
    bad: str
    suspects: list[str] = []
    """The one commit, or several; none where there was no telling."""
    detail: str = ""
    """The change that confirmed it, or why there was no telling."""


class Culprits(BaseModel):
    """culprits.json."""

    schema_: int = 1
    bisections: list[Culprit] = []


def load(path: Path | None) -> Culprits:
    """The outcomes in a file; none without one, or where it is not there yet."""
    return read(path, Culprits) if path and path.exists() else Culprits()


def narrowed(causes: Sequence[Cause], culprits: Culprits, order: Order) -> list[Cause]:
    """The causes, each with the commits that a bisection of one of its figures left."""
    return [_narrowed(cause, culprits, order) for cause in causes]


def _narrowed(cause: Cause, culprits: Culprits, order: Order) -> Cause:
    own = {(figure.machine, figure.entry.name) for figure in cause.figures}
    for found in culprits.bisections:
        about = (found.machine, found.name) in own
        inside = [each for each in found.suspects if order.overlap(each, cause.range)]
        if about and inside:
            return replace(cause, suspects=tuple(inside))
    return cause
