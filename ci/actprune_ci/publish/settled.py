"""Whether a figure that became worse is good again: only what was measured again can be.

What is not looked at is not gone: a machine that fell silent, a narrower choice of benchmarks, a
shallow clone settle nothing.
"""

from dataclasses import dataclass
from statistics import median

from actprune_ci.model.documents import GateEntry, GateJson, HistoryEntry, HistoryJson, Measured
from actprune_ci.publish.causes import place
from actprune_ci.publish.marks import VERSION, Kept, Mark
from actprune_ci.publish.reports.formatting import number
from actprune_ci.triage.order import Order

BACK = 0.25
"""Of a change: what is left of it where a figure counts as good again; more is a partial repair."""
UNMEASURED = ("vanished", "failed")


@dataclass(frozen=True)
class Settlement:
    """The state of one figure."""

    good: bool
    why: str
    """How it is known to be good, or what keeps that from being known; empty: it is still worse."""
    decided: bool = False
    """Whether somebody decided it, in the triage or the policy."""


STILL = Settlement(False, "")


class Evidence:
    """What the gate and the history show of figures."""

    def __init__(self, gate: GateJson | None, history: HistoryJson | None, order: Order) -> None:
        self.gate, self.history, self.order = gate, history, order
        self._measured: dict[str, list[Measured]] = {}
        self._found: dict[str, list[HistoryEntry]] = {}
        for figure in history.figures if history else ():
            for name in _names(figure, figure.machine, figure.environment):
                self._measured.setdefault(name, []).append(figure)
        for found in history.findings if history else ():
            for name in _names(found, found.machine, found.environment):
                self._found.setdefault(name, []).append(found)

    def of(self, figure: Kept, said: Mark) -> Settlement:
        """What is known of a figure of an issue."""
        by_gate = self._by_gate(figure, said)
        return by_gate if by_gate.good else self._by_history(figure, said)

    def _by_gate(self, figure: Kept, said: Mark) -> Settlement:
        gate = self.gate
        if gate is None or gate.machine != figure.machine:
            return STILL
        where = f"{gate.base[:10]}..{gate.head[:10]}"
        for found in (f for f in gate.findings if f.identity(gate.machine) == figure.id):
            if found.acknowledged and self.order.overlap(
                said_range(said), f"{gate.base}..{gate.head}"
            ):
                return Settlement(True, str(found.acknowledged), True)
            if (gate.base, gate.head) != (said.good, said.bad) and _way_back(figure, found):
                return Settlement(True, f"{found.word} in {where}")
        return STILL

    def _by_history(self, figure: Kept, said: Mark) -> Settlement:
        if self.history is None:
            return STILL
        for found in self._found.get(figure.place, ()):
            if not (found.regression and self.order.overlap(found.range, said_range(said))):
                continue
            if found.acknowledged:
                return Settlement(True, str(found.acknowledged), True)
            if found.lasting and found.severity == "info":
                return Settlement(True, "the policy calls it information alone", True)
            if found.lasting and found.standing == "shared":
                return Settlement(False, "nearly all figures of its machine moved alike")
            if found.lasting:
                return STILL
        states = self._newest(figure.place)
        if not states:
            return Settlement(False, "was not looked at")
        answers = [self._of_newest(figure, said, each) for each in states]
        return next((answer for answer in answers if not answer.good), answers[0])

    def _newest(self, name: str) -> list[Measured]:
        """The newest measurement of a figure in each environment that it is known in."""
        last: dict[str, Measured] = {}
        for each in self._measured.get(name, ()):
            before = last.get(each.environment)
            if before is None or self._at(each) > self._at(before):
                last[each.environment] = each
        return list(last.values())

    def _at(self, measured: Measured) -> int:
        found = self.order.place(measured.newest)
        return -1 if found is None else found

    def _of_newest(self, figure: Kept, said: Mark, newest: Measured) -> Settlement:
        bad, at = self.order.place(said.bad), self.order.place(newest.newest)
        if bad is None or at is None:
            return Settlement(False, f"commit {said.bad[:10]} is not known here")
        if at <= bad:
            return Settlement(False, f"was not measured since {newest.newest[:10]}")
        known = figure.version or figure.before is not None
        if known and figure.version != newest.version[:VERSION]:
            return Settlement(False, "is measured by another version of its benchmark now")
        since, good = self.order.place(newest.since), self.order.place(said.good)
        if since is not None and (good is None or since > good):
            return Settlement(True, f"a new baseline begins at {newest.since[:10]}", True)
        since_then = [v for commit, v in newest.recent if (self.order.place(commit) or 0) > bad]
        level = median(since_then or [newest.value])
        value = f"{number(level, newest.unit)} at {newest.newest[:10]}"
        if figure.outcome in UNMEASURED:
            return Settlement(True, f"measured again: {value}")
        if figure.outcome == "over budget":
            return Settlement(False, "only the gate knows its budget")
        levels = self._levels(figure, said)
        if levels is None:
            return Settlement(False, "its old level is not known")
        if len(since_then) < len(newest.recent) or not back(level, *levels):
            return STILL  # one value of a noisy figure is no level
        return Settlement(True, f"back at {value}")

    def _levels(self, figure: Kept, said: Mark) -> tuple[float, float] | None:
        """Before and after: as the issue says, or as the history knows where it is an old one."""
        if figure.before is not None and figure.after is not None:
            return figure.before, figure.after
        found = [f for f in self._found.get(figure.place, ()) if f.regression]
        own = [f for f in found if self.order.overlap(f.range, said_range(said))]
        return (own[0].before, own[0].after) if own else None


def _names(entry: HistoryEntry | Measured, machine: str, environment: str) -> set[str]:
    """What a figure is called in marks: marks of the gate, and old ones, know no environment."""
    own = entry.identity(machine)
    return {own, place(own, environment)}


def said_range(said: Mark) -> str:
    """The commits that an issue's cause lies between."""
    return f"{said.good}..{said.bad}"


def _way_back(figure: Kept, found: GateEntry) -> bool:
    """Whether the gate shows that a figure is good again, in other commits than those of old."""
    if figure.outcome in UNMEASURED:
        return found.outcome not in (*UNMEASURED, "skipped")
    if figure.outcome == "over budget":
        return found.outcome == "within budget"
    if found.outcome != "faster" or found.effect is None:
        return False
    if figure.before is not None and figure.after is not None:
        return back(found.effect.head, figure.before, figure.after)
    if figure.effect is None or found.effect.change is None or found.effect.absolute:
        return False
    return abs((1 + figure.effect) * (1 + found.effect.change) - 1) <= BACK * abs(figure.effect)


def back(value: float, before: float, after: float) -> bool:
    """Whether a value is at the old level, but for a quarter of the change, or beyond it."""
    return (value - before - BACK * (after - before)) * (after - before) < 0
