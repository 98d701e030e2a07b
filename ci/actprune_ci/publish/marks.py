"""What an issue says, in a hidden mark of its text: its cause, and each figure's levels.

Marks from before causes are those of one figure: they are understood as a cause of one.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError, dataclasses

from actprune_ci.publish.causes import Cause, Kind, Known, Told

MARK = re.compile(r"<!-- actprune-ci (cause|regression) (\{.*\}) -->")
MOST_KEPT, LONGEST = 200, 40_000
"""Figures of a mark, the worst, and its characters: an issue's text has room for so many."""
VERSION = 12
"""Digits of a benchmark's version that are kept."""
State = Literal["open", "gone", "settled"]


@dataclasses.dataclass(frozen=True)
class Kept:
    """A figure as an issue says it."""

    place: str
    machine: str
    name: str
    outcome: str
    effect: float | None = None
    before: float | None = None
    after: float | None = None
    version: str = ""

    @property
    def id(self) -> str:
        """Of the figure on its machine, in whatever environment."""
        return self.place.partition("/")[0]


@dataclasses.dataclass(frozen=True)
class Mark:
    """What an issue says."""

    id: str
    good: str
    bad: str
    kind: Kind
    figures: tuple[Kept, ...]
    state: State = "open"
    held: str = ""
    """Why it is kept open, once that was said."""
    suspects: tuple[str, ...] = ()
    """What a bisection left."""
    schema: int = 2
    """1: a mark from before causes."""

    @property
    def known(self) -> Known:
        """As a cause that was told before."""
        ids = frozenset(figure.id for figure in self.figures)
        over = self.state == "gone"
        return Known(self.id, self.good, self.bad, self.kind, ids, over)


@dataclass(frozen=True)
class _Before:
    """A mark from before causes."""

    id: str
    machine: str
    outcome: str
    effect: float | None
    absolute: bool = False
    where: str = ""
    source: str = "gate"


_MARK = TypeAdapter(Mark)


def marked(body: str) -> Mark | None:
    """What an issue says; None where it has no mark of ours that can be read."""
    found = MARK.search(body)
    try:
        if found is None:
            return None
        inside: Any = json.loads(found[2])
        return _of_before(**inside) if found[1] == "regression" else _MARK.validate_python(inside)
    except (ValueError, TypeError, ValidationError):
        return None


def _of_before(**inside: Any) -> Mark:
    old = _Before(**inside)
    good, _, bad = old.where.partition("..")
    figure = Kept(old.id, old.machine, "", old.outcome, old.effect)
    kind: Kind = "creep" if old.outcome == "creep" else "step"
    state: State = "gone" if old.outcome == "gone" else "open"
    return Mark(old.id, good, bad, kind, (figure,), state, schema=1)


def mark(said: Mark) -> str:
    """The hidden mark, which nothing inside can end."""
    inside = json.dumps(_MARK.dump_python(said, exclude_defaults=True), separators=(",", ":"))
    inside = inside.replace("<", "\\u003c").replace(">", "\\u003e")
    return f"<!-- actprune-ci cause {inside} -->"


def kept(figure: Told) -> Kept:
    """A figure of a cause, as its issue says it."""
    entry, (before, after) = figure.entry, figure.levels or (None, None)
    name = f"{entry.name}, {entry.metric}"[:120]
    effect, before, after = map(_short, (figure.effect, before, after))
    said = (figure.place, figure.machine, name, figure.outcome)
    return Kept(*said, effect, before, after, entry.version[:VERSION])


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def made(cause: Cause, more: Sequence[Kept] = ()) -> Mark:
    """What the issue of a cause is to say; `more`: figures of it that nobody settled yet."""
    figures = (*map(kept, cause.figures), *more)[:MOST_KEPT]
    said = Mark(cause.id, cause.good, cause.bad, cause.kind, figures, suspects=cause.suspects)
    while len(mark(said)) > LONGEST and len(said.figures) > 1:
        said = replace(said, figures=said.figures[: len(said.figures) // 2])
    return said
