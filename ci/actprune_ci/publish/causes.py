"""Regressions by their cause: the figures that can have become worse by the same commit.

A cause is a range of commits. Figures of all machines whose ranges have a commit in common stand
together; creep, which has no one commit, stands apart. What the gate closes over joins the cause
that its range overlaps.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal

from actprune_ci.model.documents import GateEntry, GateJson, HistoryEntry, HistoryJson
from actprune_ci.triage.order import Order

Kind = Literal["step", "creep"]
TIMES = 9
"""Relative changes from which on a factor says more than percents."""
MOVED = 10
"""Commits: by so many the estimate of one and the same change moves from night to night."""


@dataclass(frozen=True)
class Told:
    """A figure of a cause."""

    machine: str
    entry: GateEntry | HistoryEntry

    @property
    def id(self) -> str:
        """Of the figure on its machine."""
        return self.entry.identity(self.machine)

    @property
    def place(self) -> str:
        """Of the figure on its machine, in its environment."""
        return place(self.id, getattr(self.entry, "environment", ""))

    @property
    def outcome(self) -> str:
        """What became of it: a step, slower, vanished, ..."""
        return self.entry.outcome if isinstance(self.entry, GateEntry) else self.entry.kind

    @property
    def levels(self) -> tuple[float, float] | None:
        """Before and after, in its unit."""
        if isinstance(self.entry, HistoryEntry):
            return self.entry.before, self.entry.after
        return (self.entry.effect.base, self.entry.effect.head) if self.entry.effect else None

    @property
    def effect(self) -> float | None:
        """The change: relative, or in the unit where it is absolute."""
        if isinstance(self.entry, HistoryEntry):
            return self.entry.effect
        return self.entry.effect.change if self.entry.effect else None

    @property
    def size(self) -> str:
        """The change, for people."""
        if isinstance(self.entry, HistoryEntry):
            if self.entry.size and not self.entry.size.endswith("%"):
                return self.entry.size
            return percent(self.entry.effect)
        effect = self.entry.effect
        if effect is None or effect.change is None:
            return self.entry.word
        return f"{effect.change:+.6g}" if effect.absolute else percent(effect.change)


@dataclass(frozen=True)
class Cause:
    """What made figures worse: a range of commits, and the figures, the worst first."""

    good: str
    bad: str
    kind: Kind
    figures: tuple[Told, ...]
    id: str = ""
    """The same from night to night; see `identified`."""
    suspects: tuple[str, ...] = ()
    """The commits that a bisection left of the range."""

    @property
    def range(self) -> str:
        """As git takes it."""
        return f"{self.good}..{self.bad}"

    @property
    def ids(self) -> set[str]:
        """Of its figures."""
        return {figure.id for figure in self.figures}


@dataclass(frozen=True)
class Known:
    """A cause that was told before."""

    id: str
    good: str
    bad: str
    kind: Kind
    figures: Collection[str]
    """Their ids."""
    over: bool = False
    """Whether it was over: another change of its figures is another cause."""


def percent(effect: float) -> str:
    """A relative change with as many digits as a reader needs."""
    size = 100 * effect
    if effect >= TIMES:
        return f"×{1 + effect:,.0f}"
    return f"{size:+.0f} %" if abs(size) >= 10 else f"{size:+.3g} %"


def place(id: str, environment: str) -> str:
    """A figure on its machine in an environment."""
    return f"{id}/{sha256(environment.encode()).hexdigest()[:6]}" if environment else id


def minded(entry: HistoryEntry) -> bool:
    """Whether a change of a history is one that somebody must hear of."""
    settled = entry.severity == "info" or entry.acknowledged is not None
    confirmed = entry.standing == "confirmed" and entry.lasting
    return entry.regression and confirmed and not settled


def causes(gates: Iterable[GateJson], history: HistoryJson | None, order: Order) -> list[Cause]:
    """The causes of what gates close over and a history knows to last, the newest first."""
    found = [entry for entry in history.findings if minded(entry)] if history else []
    made: list[Cause] = []
    for kind in ("step", "creep"):
        of_kind = [e for e in found if (e.kind == "creep") == (kind == "creep")]
        made += _grouped(of_kind, "creep" if kind == "creep" else "step", order)
    for gate in gates:
        failing = tuple(Told(gate.machine, f) for f in gate.findings if f.fails)
        if failing:
            _join(made, Cause(gate.base, gate.head, "step", failing), order)
    ordered = [replace(each, figures=tuple(sorted(each.figures, key=_badness))) for each in made]
    return sorted(ordered, key=lambda each: (-(order.place(each.bad) or 0), -len(each.figures)))


def _badness(figure: Told) -> tuple[bool, float]:
    return figure.entry.severity != "error", -abs(figure.effect or 0)


def _grouped(found: Sequence[HistoryEntry], kind: Kind, order: Order) -> list[Cause]:
    """Changes by a commit that their ranges have in common: the earliest end first."""
    spans = [(order.span(entry.range) or (-1, -1), entry) for entry in found]
    left = sorted(spans, key=lambda each: (each[0][1], each[1].range))
    made = []
    while left:
        (_, end), first = left[0]
        together: list[tuple[tuple[int, int], HistoryEntry]] = []
        rest: list[tuple[tuple[int, int], HistoryEntry]] = []
        for each in left:
            alike = each[0][0] < end if end >= 0 else each[1].range == first.range
            (together if alike else rest).append(each)
        good = max(together, key=lambda each: each[0][0])[1].range.partition("..")[0]
        figures = tuple(Told(entry.machine, entry) for _, entry in together)
        made.append(Cause(good, first.range.partition("..")[2], kind, figures))
        left = rest
    return made


def _join(made: list[Cause], new: Cause, order: Order) -> None:
    """Add what the gate says to the cause of its commits, or as one of its own."""
    for i, each in enumerate(made):
        if each.kind == "step" and order.overlap(each.range, new.range):
            have = each.ids
            more = tuple(figure for figure in new.figures if figure.id not in have)
            ends = [(each, order.span(each.range)), (new, order.span(new.range))]
            good = max(ends, key=lambda e: e[1][0] if e[1] else -1)[0].good
            bad = min(ends, key=lambda e: e[1][1] if e[1] else 0)[0].bad
            made[i] = replace(each, good=good, bad=bad, figures=each.figures + more)
            return
    made.append(new)


def identified(
    found: Sequence[Cause], known: Sequence[Known], order: Order
) -> list[tuple[Cause, int | None]]:
    """Each cause with the place of the one that was told before, whose identity it keeps.

    Ranges narrow and figures come and go: they are the same where their ranges can hold the same
    commit. Where a clone does not know a commit, or an estimate moved, figures in common decide.
    """
    scores = []
    then = [order.span(f"{old.good}..{old.bad}") for old in known]
    for i, cause in enumerate(found):
        now, ids = order.span(cause.range), cause.ids
        of_history = any(isinstance(figure.entry, HistoryEntry) for figure in cause.figures)
        for j, old in enumerate(known):
            apart = _apart(now, then[j])
            if apart is not None and apart > MOVED:
                continue
            alike = cause.kind == old.kind
            if score := _alike(apart, alike, len(ids & set(old.figures)), old, of_history):
                scores.append((score, -i, -j))
    before: dict[int, int] = {}
    for _, i, j in sorted(scores, reverse=True):
        if -i not in before and -j not in before.values():
            before[-i] = -j
    return [
        (replace(cause, id=known[before[i]].id if i in before else _name(cause)), before.get(i))
        for i, cause in enumerate(found)
    ]


def _apart(now: tuple[int, int] | None, then: tuple[int, int] | None) -> int | None:
    """How many commits lie between two ranges, below 0 where they overlap; None: not known."""
    return max(now[0], then[0]) - min(now[1], then[1]) if now and then else None


def _alike(
    apart: int | None, alike: bool, shared: int, old: Known, of_history: bool
) -> tuple[int, int] | None:
    """How surely a cause is one that was told before; None where it is another."""
    if apart is None:
        return (2, shared) if shared else None
    if apart < 0:
        return (3 if alike else 2), shared
    moved = of_history and not old.over and 2 * shared >= max(1, len(old.figures))
    return (1, shared) if moved else None


def _name(cause: Cause) -> str:
    what = [cause.kind, cause.good, cause.bad, min(cause.ids)]
    return sha256(json.dumps(what).encode()).hexdigest()[:16]
