"""What bisections found: culprits.json, the causes that it narrows, and those left to be asked."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel

from actprune_ci.model.reading import read
from actprune_ci.publish.causes import Cause, Told
from actprune_ci.triage.order import Order
from actprune_common.files import by_lines


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

    bisections: list[Culprit] = []

    @property
    def text(self) -> str:
        """The file (schema 1)."""
        return by_lines({"schema": 1, **self.model_dump()})


def load(path: Path | None) -> Culprits:
    """The outcomes in a file; none without one, or where it is not there yet."""
    return read(path, Culprits) if path and path.exists() else Culprits()


def narrowed(causes: Sequence[Cause], culprits: Culprits, order: Order) -> list[Cause]:
    """The causes, each with the commits that a bisection of one of its figures left."""
    made = []
    for cause in causes:
        found = next(_inside(cause, culprits, order), None)
        made.append(replace(cause, suspects=found[1]) if found else cause)
    return made


def _inside(
    cause: Cause, culprits: Culprits, order: Order
) -> Iterator[tuple[Culprit, tuple[str, ...]]]:
    """The outcomes about a cause, each with its suspects among the cause's commits."""
    own = {(figure.machine, figure.entry.name) for figure in cause.figures}
    for found in culprits.bisections:
        inside = tuple(each for each in found.suspects if order.overlap(each, cause.range))
        if (found.machine, found.name) in own and inside:
            yield found, inside


def to_ask(
    causes: Sequence[Cause], culprits: Culprits, order: Order, machine: str
) -> list[tuple[Cause, Told]]:
    """What a bisection on a machine could find: causes of several commits, each with a figure.

    Creep has no one commit. What was asked of the same range before is not asked again.
    """
    asked = {(c.machine, c.name, c.good, c.bad) for c in culprits.bisections}
    made = []
    for cause in causes:
        span = order.span(cause.range)
        if cause.kind == "creep" or cause.suspects or not span or span[1] - span[0] < 2:
            continue
        figures = [f for f in cause.figures if f.machine == machine and f.levels]
        if figures and not any(
            (machine, f.entry.name, cause.good, cause.bad) in asked for f in figures
        ):
            made.append((cause, figures[0]))
    return made


def kept(causes: Sequence[Cause], culprits: Culprits, order: Order) -> list[Culprit]:
    """The outcomes that are still about a cause: others are of no use any more."""
    return [
        found
        for found in culprits.bisections
        if any(
            order.overlap(f"{found.good}..{found.bad}", cause.range)
            and found.name in {figure.entry.name for figure in cause.figures}
            for cause in causes
        )
    ]
