"""The changes of a branch's figures: what they mean under a policy, and between which commits."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain, repeat
from typing import Any

import numpy as np

from actprune_ci.history.changes import FEWEST, Change, changes
from actprune_ci.history.creep import Series
from actprune_ci.history.series import History, HistoryFigure
from actprune_ci.judge.policy import Policy, Severity, Terms
from actprune_ci.model.documents import Acknowledged
from actprune_ci.model.metrics import TIMES

MOST_NAMES = 10
LARGE = 2_000_000
"""Values of a matrix from which on all cores share it."""


@dataclass(frozen=True)
class HistoryFinding:
    """One change of one figure, with the commits that it lies between."""

    figure: HistoryFigure
    change: Change
    good: str
    """The last commit that surely has the old level."""
    bad: str
    """The first commit that surely has the new one."""
    regression: bool
    """Whether it is a change for the worse; never so for a figure without a direction."""
    lasting: bool
    """Whether the newest level is still nearer to the new one than to the old one, or beyond it."""
    terms: Terms
    superseded: bool = False
    """Whether a newer version of the benchmark, or a new baseline, took the figure's place."""
    column: int = 0
    """Of the figure in the history."""
    acknowledged: Acknowledged | None = None
    """Who settled it, and why: it is shown, and counts no more."""

    @property
    def range(self) -> str:
        """The commits among which the change is, as git rev-list takes them."""
        return f"{self.good}..{self.bad}"

    @property
    def severity(self) -> Severity:
        """How much the policy minds."""
        return self.terms.rule.severity

    @property
    def verdict(self) -> str:
        """What the change means, in a word or two."""
        if self.terms.direction == "none":
            return "changed"
        if not self.regression:
            return "better"
        if self.superseded:
            return "was worse, until the benchmark itself changed"
        return "worse" if self.lasting else "was worse for a time"

    @property
    def size(self) -> str:
        """How large the change is, for people: relative where both levels are above zero."""
        change = self.change
        if self.terms.smallest_change is None and min(change.before, change.after) > 0:
            return f"{change.effect:+.4%}" if change.kind == "exact" else f"{change.effect:+.2%}"
        return f"{change.after - change.before:+.6g}"

    @property
    def standing(self) -> str:
        """How sure it is: confirmed, suspected, passing, shared by all figures of the machine."""
        return str(getattr(self.change, "standing", "confirmed"))

    @property
    def threshold(self) -> float:
        """The level from which on a change from the old level counts."""
        sign = 1 if self.change.after > self.change.before else -1
        before, least = self.change.before, self.terms.smallest_change
        if least is not None or before <= 0:
            return before + sign * (least or 0.0)
        return float(before * (1 + self.terms.smallest_effect) ** sign)

    @property
    def document(self) -> dict[str, Any]:
        """For JSON."""
        rule = self.terms.rule
        figure = asdict(self.figure)
        figure.pop("declared")
        return {
            **figure,
            **asdict(self.change),
            "effect": self.change.effect,
            "size": self.size,
            "good": self.good,
            "bad": self.bad,
            "range": self.range,
            "regression": self.regression,
            "lasting": self.lasting,
            "superseded": self.superseded,
            "verdict": self.verdict,
            "direction": self.terms.direction,
            "severity": rule.severity,
            "owner": rule.owner,
            "reason": rule.reason,
            "threshold": self.threshold,
            "acknowledged": self.acknowledged and asdict(self.acknowledged),
        }


def findings(
    history: History, policy: Policy | None = None, smallest: float | None = None
) -> list[HistoryFinding]:
    """All changes of a history, those that last first, then the largest first.

    The policy says which way is better, how large a change must be to be told, and who minds.
    `smallest` takes the place of its smallest relative effects.
    """
    rules = policy or Policy()
    terms = [figure.terms(rules) for figure in history.figures]
    if smallest is not None:
        terms = [t if t.exact else replace(t, smallest_effect=smallest) for t in terms]
    least = min((t.smallest_effect for t in terms if not t.exact), default=0.01)
    columns = _changes(history.values, [_exact(t) for t in terms], least)
    newest = _newest_versions(history)
    found = []
    for column, (figure, told, all_of_it) in enumerate(
        zip(history.figures, terms, columns, strict=True)
    ):
        for change in all_of_it:
            if not told.matters(change.before, change.after):
                continue
            good, bad = history.commits[change.first], history.commits[change.last]
            middle, last = (change.before + change.after) / 2, all_of_it[-1].after
            lasting = (last > middle) == (change.after > change.before)
            old = column not in newest
            worse = told.worse(change.after - change.before)
            made = HistoryFinding(
                figure, change, good, bad, worse, lasting and not old, told, old, column
            )
            found.append(made)
    return sorted(found, key=lambda f: (not (f.regression and f.lasting), -abs(f.change.effect)))


def _exact(terms: Terms) -> bool | None:
    """How a series is analysed: by every difference, by its noise, or as its values tell."""
    if terms.exact:
        # where small differences do not count, many of them in one direction still may
        tolerant = terms.smallest_change or terms.smallest_effect
        return True if (terms.metric.known or terms.rule.exact) and not tolerant else None
    return False if terms.metric.known or terms.metric.unit in TIMES else None


def _newest_versions(history: History) -> set[int]:
    """The columns that no newer version of the same figure has followed."""
    last: dict[tuple[str, ...], tuple[int, int]] = {}
    for column, figure in enumerate(history.figures):
        row = int(np.flatnonzero(np.isfinite(history.values[:, column]))[-1])
        last[figure.series] = max(last.get(figure.series, (row, column)), (row, column))
    return {column for _, column in last.values()}


def looked_at(history: History) -> list[dict[str, Any]]:
    """Every figure of a history for JSON: which it is, where it was last measured, and how it was.

    What is not here was not looked at.
    """
    made = []
    for column, figure in enumerate(history.figures):
        rows = np.flatnonzero(np.isfinite(history.values[:, column]))
        facts = asdict(figure)
        facts.pop("declared")
        newest = {"newest": history.commits[rows[-1]], "measured": len(rows)}
        made.append({**facts, **newest, "value": float(history.values[rows[-1], column])})
    return made


def about(history: History, policy: Policy) -> Iterator[str]:
    """What a reader must know of a history's figures: what is short, renewed, or only described."""
    counts = np.isfinite(history.values).sum(0)
    if short := int((counts < FEWEST).sum()):
        yield (
            f"{short} of {len(history.figures)} figures have fewer than {FEWEST} measurements:"
            " nothing can be told of their noise"
        )
    versions = Counter(figure.series for figure in history.figures)
    if renewed := sum(count > 1 for count in versions.values()):
        yield f"{renewed} figures begin anew where their benchmark's own version changed"
    unknown = {
        figure.metric
        for figure in history.figures
        if (terms := figure.terms(policy)).direction == "none" and not terms.metric.known
    }
    if unknown:
        names = ", ".join(sorted(unknown)[:MOST_NAMES]) + ", ..." * (len(unknown) > MOST_NAMES)
        yield f"{len(unknown)} metrics that nobody declares are neither better nor worse: {names}"


def _changes(matrix: Series, exact: Sequence[bool | None], smallest: float) -> list[list[Change]]:
    """`changes`, large matrices on all cores."""
    workers = os.cpu_count() or 1
    if matrix.size < LARGE or workers == 1:
        return changes(matrix, exact, smallest)
    parts = np.array_split(np.arange(matrix.shape[1]), 4 * workers)
    context = multiprocessing.get_context("spawn")  # DuckDB's threads do not survive a fork
    with ProcessPoolExecutor(workers, context) as pool:
        columns, rules = [matrix[:, part] for part in parts], [[exact[i] for i in p] for p in parts]
        return list(chain(*pool.map(changes, columns, rules, repeat(smallest))))
