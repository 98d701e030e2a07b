"""Regressions as issues: one for each cause, updated when it changes, closed when it is gone.

An issue is known by a hidden mark in its text (actprune_ci.publish.marks). A cause is the one that
an issue speaks of where their commits overlap, whatever figures come and go. An issue is closed
when each figure that it ever told was measured again and is good, or somebody decided about it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from actprune_ci.model.documents import GateJson, HistoryJson
from actprune_ci.publish.causes import Cause, causes, identified
from actprune_ci.publish.commits import Repository
from actprune_ci.publish.culprits import Culprits, narrowed
from actprune_ci.publish.github import Action, Issue
from actprune_ci.publish.marks import MARK, Kept, Mark, made, mark, marked
from actprune_ci.publish.reports.markdown import text
from actprune_ci.publish.settled import Evidence, Settlement, said_range
from actprune_ci.publish.story import told
from actprune_ci.publish.telling import body, comment, title

ANOTHER = 0.25
"""A relative effect has changed where it is off by a quarter of what was said."""
MOST_REASONS = 10


@dataclass(frozen=True)
class _Known:
    issue: Issue
    said: Mark


def plan(
    gate: GateJson | None,
    history: HistoryJson | None,
    issues: Iterable[Issue],
    repository: Repository,
    culprits: Culprits = Culprits(),
) -> list[Action]:
    """What is to be done so that the issues say what the gate and the history say."""
    known: dict[str, _Known] = {}
    for issue in issues:  # the newest first: that one counts, if somebody made two
        if (said := marked(issue.body)) is not None:
            known.setdefault(said.id, _Known(issue, said))
    before = list(known.values())
    order = repository.order(gate, history)
    found = narrowed(causes([gate] if gate else [], history, order), culprits, order)
    pairs = identified(found, [each.said.known for each in before], order)
    planner = _Planner(Evidence(gate, history, order), repository)
    actions = [
        planner.told(cause, before[place] if place is not None else None) for cause, place in pairs
    ]
    taken = {place for _, place in pairs}
    others = [(cause, before[p].issue.number if p is not None else 0) for cause, p in pairs]
    actions += [
        planner.ended(each, others)
        for place, each in enumerate(before)
        if place not in taken and each.issue.is_open
    ]
    return [action for action in actions if action]


class _Planner:
    """What is to be done about one issue or one cause."""

    def __init__(self, evidence: Evidence, repository: Repository) -> None:
        self.evidence, self.repository = evidence, repository

    def told(self, cause: Cause, known: _Known | None) -> Action | None:
        """What a new issue or the one that is there must say; nothing where it says so already."""
        if known is None:
            story = told(cause, self.repository)
            return Action("create", 0, title(story), body(story, made(cause)), "")
        issue, said = known.issue, known.said
        rest = self._left(cause, said)
        now = made(cause, rest)
        news = self._news(said, now)
        if not news and (_outline(said) == _outline(now) or not issue.is_open):
            return None
        story = told(cause, self.repository)
        kind: Literal["update", "reopen"] = "update" if issue.is_open else "reopen"
        said_now = comment(story, news) if news else ""
        return Action(kind, issue.number, title(story), body(story, now, rest), said_now)

    def _left(self, cause: Cause, said: Mark) -> list[Kept]:
        """Figures that an issue told and that nobody settled, though they are not told now."""
        if said.state != "open":
            return []
        gone = [each for each in said.figures if each.id not in cause.ids]
        return [each for each in gone if not self.evidence.of(each, said).good]

    def _news(self, said: Mark, now: Mark) -> list[str]:
        """What is worth a word to those who follow an issue."""
        if said.state != "open":
            return ["it is back"]
        news = []
        old = {each.id: each for each in said.figures} | {e.place: e for e in said.figures}
        new = [each for each in now.figures if each.id not in old]
        if new:
            news.append(f"{len(new)} more figures" if len(new) > 1 else "another figure")
        pairs = [(old.get(e.place, old.get(e.id)), e) for e in now.figures]
        if any(before and _differs(before, after) for before, after in pairs):
            news.append("another effect")
        if now.suspects != said.suspects and now.suspects:
            news.append("bisected")
        elif self._commits(now) == 1 != self._commits(said):
            news.append("the commit is known")
        return news

    def _commits(self, said: Mark) -> int:
        span = self.evidence.order.span(said_range(said))
        return span[1] - span[0] if span else 0

    def ended(self, known: _Known, others: Sequence[tuple[Cause, int]]) -> Action | None:
        """The end of an issue's cause, if it is good again; else, once, why that is not known."""
        issue, said = known.issue, known.said
        if said.state != "open":
            return self._close(known, said, "")  # it was closed but for the last step
        if other := self._elsewhere(said, others):
            return self._close(known, replace(said, state="gone"), other)
        answers = [(each, self.evidence.of(each, said)) for each in said.figures]
        if all(answer.good for _, answer in answers):
            decided = any(answer.decided for _, answer in answers)
            word = "Settled" if decided else "Gone"
            over = replace(said, state="settled" if decided else "gone")
            return self._close(known, over, f"{word}: {_reasons(answers)}.")
        unknown = [(each, a) for each, a in answers if a.why and not a.good]
        if not unknown or said.held:
            return None
        why = _reasons(unknown)
        held = replace(said, held=why[:200])
        return Action("update", issue.number, "", _marked(issue, held), f"Kept open: {why}.")

    def _elsewhere(self, said: Mark, others: Sequence[tuple[Cause, int]]) -> str:
        """Which other issue tells all that an issue told."""
        for cause, number in others:
            alike = self.evidence.order.overlap(cause.range, said_range(said))
            if alike and {each.id for each in said.figures} <= cause.ids:
                return f"Told in #{number} now." if number else "Told in another issue now."
        return ""

    def _close(self, known: _Known, said: Mark, why: str) -> Action:
        return Action("close", known.issue.number, "", _marked(known.issue, said), why)


def _outline(said: Mark) -> tuple[object, ...]:
    """What of an issue's text is renewed without a word, where nothing else is new."""
    places = frozenset(each.place for each in said.figures)
    return said.schema, said.good, said.bad, said.suspects, places


def _marked(issue: Issue, said: Mark) -> str:
    """An issue's text with another mark."""
    return f"{mark(said)}\n{MARK.sub('', issue.body).lstrip()}"


def _reasons(answers: Sequence[tuple[Kept, Settlement]]) -> str:
    """Why figures are good or not known to be, those with the same reason together."""
    by_reason: dict[str, list[str]] = {}
    for figure, answer in answers:
        by_reason.setdefault(answer.why, []).append(figure.name)
    lines = []
    for why, names in by_reason.items():
        named = ", ".join(filter(None, names[:3])) or "it"
        lines.append(f"{named}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: {why}")
    more = len(lines) - MOST_REASONS
    return text("; ".join(lines[:MOST_REASONS]) + (f"; and {more} more" if more > 0 else ""))


def _differs(said: Kept, now: Kept) -> bool:
    if said.outcome in ("vanished", "failed") or now.outcome in ("vanished", "failed"):
        return said.outcome != now.outcome
    if said.effect is None or now.effect is None:
        return said.effect != now.effect
    return abs(now.effect - said.effect) > ANOTHER * abs(said.effect)
