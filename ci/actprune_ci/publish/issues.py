"""Regressions as issues: one for each, updated when it changes, closed when it is gone.

An issue is known by a hidden mark in its text: a digest of the machine and the figure, and what was
said last. Regressions are those that close the gate, and those of the history that last. The gate
compares with the night before, so that it no longer shows one does not mean that it is gone: it is
when the gate shows the way back, or the history its end.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from actprune_ci.model.documents import Entry, GateEntry, GateJson, HistoryEntry, HistoryJson
from actprune_ci.publish.github import Action, Issue
from actprune_ci.publish.reports.formatting import number
from actprune_ci.publish.reports.markdown import code, table, text, unlinked
from actprune_common.printable import visible

MARK = re.compile(r"<!-- actprune-ci regression (\{.*\}) -->")
GONE = "gone"
ANOTHER = 0.25
"""A relative effect has changed where it is off by a quarter of what was said."""
FOOT = "Kept by `actprune-ci issues`: updated when the effect changes, closed when it is gone."


@dataclass(frozen=True)
class Said:
    """What an issue says: its hidden mark."""

    id: str
    machine: str
    outcome: str
    effect: float | None
    """The change since the last good level: relative, or in the unit where `absolute`."""
    absolute: bool = False
    where: str = ""
    """The commits that it lies between."""
    source: Literal["gate", "history"] = "gate"


@dataclass(frozen=True)
class Regression:
    """One to be told."""

    said: Said
    title: str
    lines: tuple[str, ...] = field(compare=False)
    """Markdown."""


def plan(
    gate: GateJson | None, history: HistoryJson | None, issues: Iterable[Issue]
) -> list[Action]:
    """What is to be done so that the issues say what the gate and the history say."""
    known: dict[str, tuple[Issue, Said]] = {}
    for issue in issues:  # the newest first: that one counts, if somebody made two
        if (said := marked(issue.body)) is not None:
            known.setdefault(said.id, (issue, said))
    now = regressions(gate, history)
    actions = [_told(found, *known.get(name, (None, None))) for name, found in now.items()]
    actions += [
        _ended(issue, said, gate, history)
        for name, (issue, said) in known.items()
        if name not in now and issue.is_open
    ]
    return [action for action in actions if action]


def regressions(gate: GateJson | None, history: HistoryJson | None) -> dict[str, Regression]:
    """The regressions by their identity; where both know one, the gate's."""
    found = [_of_gate(each, gate) for each in gate.findings if each.fails] if gate else []
    if history:
        found += [_of_history(f) for f in history.findings if f.regression and f.lasting]
    by_identity: dict[str, Regression] = {}
    for one in found:
        by_identity.setdefault(one.said.id, one)
    return by_identity


def marked(body: str) -> Said | None:
    """What an issue says; None where it has no mark of ours that can be read."""
    found = MARK.search(body)
    try:
        return Said(**json.loads(found[1])) if found else None
    except (ValueError, TypeError):
        return None


def mark(said: Said) -> str:
    """The hidden mark, which nothing inside can end."""
    inside = json.dumps(asdict(said)).replace("<", "\\u003c").replace(">", "\\u003e")
    return f"<!-- actprune-ci regression {inside} -->"


def _of_gate(finding: GateEntry, gate: GateJson) -> Regression:
    effect = finding.effect
    change, absolute = (effect.change, effect.absolute) if effect else (None, False)
    where, identity = f"{gate.base}..{gate.head}", finding.identity(gate.machine)
    said = Said(identity, gate.machine, finding.outcome, change, absolute, where)
    levels = (effect.base, effect.head) if effect else ()
    rows = _rows(said, finding.unit, _size(said), *levels)
    named = ("bound", "detail", "reason", "owner")
    rows += [(name, value) for name in named if (value := getattr(finding, name))]
    repeat = ["", "To repeat it:", *code(visible(finding.command))] if finding.command else []
    return Regression(said, _title(finding.word, finding), (*table(["", ""], rows), *repeat))


def _of_history(finding: HistoryEntry) -> Regression:
    identity, machine = finding.identity(finding.machine), finding.machine
    said = Said(identity, machine, finding.kind, finding.effect, False, finding.range, "history")
    size = f"{_size(said)}, a {finding.kind}"
    rows = _rows(said, finding.unit, size, finding.before, finding.after)
    return Regression(said, _title("worse", finding), tuple(table(["", ""], rows)))


def _rows(said: Said, unit: str, size: str, *levels: float) -> list[tuple[str, str]]:
    """What every issue's table begins with; the change and its levels where they are known."""
    good, _, bad = said.where.partition("..")
    rows = [("machine", said.machine), ("commits", f"{good[:12]}..{bad[:12]}")]
    if levels:
        figures = " → ".join(number(level, unit) for level in levels)
        rows += [("change", size), ("figures", figures)]
    return rows


def _told(found: Regression, issue: Issue | None, said: Said | None) -> Action | None:
    """What a new issue or the one that is there must say; nothing where it says so already."""
    if issue is None or said is None:
        return Action("create", 0, found.title, _body(found), "")
    now = found.said
    if now.source == "gate" == said.source and said.outcome != GONE:
        again = said.where == now.where  # else it is one night's change upon another's
        now = replace(now, effect=said.effect if again else _together(said, now))
    if not _differs(said, now):
        return None
    body = _body(replace(found, said=now))
    lines = "\n".join((f"**{text(now.outcome)}** {text(_size(now))}", "", *found.lines))
    kind: Literal["update", "reopen"] = "update" if issue.is_open else "reopen"
    return Action(kind, issue.number, found.title, body, lines)


def _ended(
    issue: Issue, said: Said, gate: GateJson | None, history: HistoryJson | None
) -> Action | None:
    """The end of an issue's regression, if the gate or the history shows it."""
    why = "" if said.outcome == GONE else _way_back(said, gate) or _ceased(said, history)
    if not why and said.outcome != GONE:
        return None
    gone = replace(said, outcome=GONE, effect=None)
    body = f"{mark(gone)}\n{MARK.sub('', issue.body).lstrip()}"
    return Action("close", issue.number, "", body, f"Gone: {text(why)}." if why else "")


def _way_back(said: Said, gate: GateJson | None) -> str:
    """How the gate shows that a regression is gone."""
    if gate is None or said.where == f"{gate.base}..{gate.head}" or said.machine != gate.machine:
        return ""
    for finding in (f for f in gate.findings if f.identity(gate.machine) == said.id):
        what = f"{finding.word} in {gate.base[:12]}..{gate.head[:12]}"
        if said.outcome in ("vanished", "failed"):
            measured = finding.outcome not in ("vanished", "failed", "skipped")
            return f"measured again, {what}" if measured else ""
        if said.outcome == "over budget" and finding.outcome == "within budget":
            return what
        if finding.outcome == "faster" and finding.effect and said.effect is not None:
            change = replace(said, effect=finding.effect.change)
            left = abs(_together(said, change) or 0.0)
            return what if left <= abs(said.effect) / 2 else ""
    return ""


def _ceased(said: Said, history: HistoryJson | None) -> str:
    """How the history shows that a regression is gone."""
    if history is None:
        return ""
    own = [f for f in history.findings if f.identity(f.machine) == said.id and f.regression]
    if any(not finding.lasting for finding in own):
        return "the newest commits are back at the old level"
    return "" if said.source == "gate" or own else "the history no longer shows it"


def _together(said: Said, now: Said) -> float | None:
    """Two changes, one upon the other."""
    if said.effect is None or now.effect is None:
        return now.effect
    if said.absolute:
        return said.effect + now.effect
    return (1 + said.effect) * (1 + now.effect) - 1


def _differs(said: Said, now: Said) -> bool:
    if said.outcome != now.outcome or said.effect is None or now.effect is None:
        return (said.outcome, said.effect) != (now.outcome, now.effect)
    return abs(now.effect - said.effect) > ANOTHER * abs(said.effect)


def _size(said: Said) -> str:
    if said.effect is None:
        return ""
    return f"{said.effect:+.6g}" if said.absolute else f"{100 * said.effect:+.4g} %"


def _title(word: str, finding: Entry) -> str:
    return unlinked(f"{word}: {finding.name}, {finding.metric}")[:200]


def _body(found: Regression) -> str:
    return "\n".join((mark(found.said), "", *found.lines, "", FOOT)) + "\n"
