"""The changes of a branch's figures: what they mean under a policy, and between which commits."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, cast

import numpy as np

from actprune_ci.history.changes import FEWEST, Change, changes, noisy
from actprune_ci.history.creep import Series
from actprune_ci.history.finding import HistoryFinding
from actprune_ci.history.machine import Move, settled
from actprune_ci.history.series import History
from actprune_ci.history.trials import rates
from actprune_ci.judge.policy import Policy, Terms
from actprune_ci.model.metrics import TIMES, listed

PLANTED = 0.05
"""The relative step that trials plant."""
RECENT = 5
"""Measurements of a noisy figure that tell where it is now: any one of them may be off."""
LARGE = 2_000_000
"""Values of a matrix from which on all cores share it."""


@dataclass(frozen=True)
class Found:
    """What changed in a history."""

    findings: Sequence[HistoryFinding]
    """Those that last first, then the largest first."""
    moves: Sequence[Move]
    """Of machines: nearly all of their figures moved at once, which no change of code explains."""
    passing: int
    """Changes that came and went, as states of a machine do; they are counted and not told."""

    def notes(self, history: History) -> Iterator[str]:
        """What a reader must know of what is not told as a change of the code."""
        for move in self.moves:
            machine, environment, metric = cast("tuple[str, str, str]", move.group)
            good, bad = history.commits[move.first], history.commits[move.last]
            yield (
                f"{move.figures} of {move.of} figures ({metric}) of machine {machine}"
                f" ({environment}) moved together by {move.effect:+.1%} in {good[:10]}..{bad[:10]}:"
                " the machine's or its environment's doing, not the code's"
            )
        if self.passing:
            yield f"{self.passing} changes came and went, as a machine's states do: not told"


def findings(
    history: History, policy: Policy | None = None, smallest: float | None = None
) -> Sequence[HistoryFinding]:
    """All changes of a history that are told; see `found_in`."""
    return found_in(history, policy, smallest).findings


def found_in(
    history: History, policy: Policy | None = None, smallest: float | None = None
) -> Found:
    """What changed in a history.

    The policy says which way is better, how large a change must be to be told, and who minds.
    `smallest` takes the place of its smallest relative effects.
    """
    rules = policy or Policy()
    terms = [figure.terms(rules) for figure in history.figures]
    if smallest is not None:
        terms = [t if t.exact else replace(t, smallest_effect=smallest) for t in terms]
    share = min((t.smallest_effect for t in terms if not t.exact), default=0.01)
    least = [  # of a level at zero there is no share
        share if t.smallest_change is None and not (column <= 0).any() else 0.0
        for t, column in zip(terms, history.values.T, strict=True)
    ]
    exact = [_exact(t) for t in terms]
    benchmarks = [f.benchmark for f in history.figures]
    alone = _changes(history.values, exact, least)
    columns, moves = settled(alone, history.values, exact, _groups(history), benchmarks)
    newest, found, passing = _newest_versions(history), [], 0
    for column, (figure, told, all_of_it) in enumerate(
        zip(history.figures, terms, columns, strict=True)
    ):
        levels = [change.after for change in all_of_it if change.standing != "suspected"]
        for change in _mattering(all_of_it, told):
            if change.standing == "passing":
                passing += 1
                continue
            good, bad = history.commits[change.first], history.commits[change.last]
            middle, last = (change.before + change.after) / 2, (levels or [change.after])[-1]
            lasting = (last > middle) == (change.after > change.before)
            lasting = lasting or change.standing == "suspected"
            old = column not in newest
            worse = told.worse(change.after - change.before)
            made = HistoryFinding(
                figure, change, good, bad, worse, lasting and not old, told, old, column
            )
            found.append(made)
    found.sort(key=lambda f: (not (f.regression and f.lasting), -abs(f.change.effect)))
    return Found(found, moves, passing)


def _mattering(found: Sequence[Change], terms: Terms) -> list[Change]:
    """The changes that are as large as counts; exact ones that only together are so are creep."""
    made: list[Change] = []
    begin: Change | None = None
    for change in found:
        if terms.matters(change.before, change.after):
            begin = None
            made.append(change)
        elif change.kind == "exact":
            begin = begin or change
            if terms.matters(begin.before, change.after):
                before = made.pop() if made and _goes_on(made[-1], begin, change) else begin
                made.append(replace(change, kind="creep", first=before.first, before=before.before))
                begin = None
            elif change.after == begin.before:
                begin = None
    return made


def _goes_on(creep: Change, begin: Change, end: Change) -> bool:
    """Whether small exact changes carry on a creep that was found before."""
    rises = creep.after > creep.before, end.after > begin.before
    return creep.kind == "creep" and creep.after == begin.before and rises[0] == rises[1]


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


def error_rates(history: History, policy: Policy, trials: int) -> str:
    """How often steps would be told that are none, and found that are, on these very series.

    By shuffled and planted commits, `trials` times each series (actprune_ci.history.trials).
    """
    exact = [_exact(figure.terms(policy)) for figure in history.figures]
    made = rates(history.values, exact, _groups(history), PLANTED, trials)
    return (
        f"in trials on these series, a step that is none was told in {made.false} of {made.series}"
        f" shuffled ones ({made.false_in_blocks} of them in blocks), and a planted"
        f" {PLANTED:+.0%} was found in {made.found} of the {made.within} whose noise allows it"
    )


def _groups(history: History) -> list[tuple[str, str, str]]:
    """Whose states and moves a figure shares: those of its machine, environment and metric."""
    return [(f.machine, f.environment, f.metric) for f in history.figures]


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
        values = history.values[:, column]
        last = rows[-RECENT:] if noisy(values) else rows[-1:]
        recent = [(history.commits[row], float(values[row])) for row in last]
        made.append({**facts, **newest, "value": float(values[rows[-1]]), "recent": recent})
    return made


def about(history: History, policy: Policy) -> Iterator[str]:
    """What a reader must know of a history's figures: what is short, renewed, or only described."""
    counts = np.isfinite(history.values).sum(0)
    if short := int((counts < FEWEST).sum()):
        yield (
            f"{short} of {len(history.figures)} figures have fewer than {FEWEST} measurements:"
            " nothing can be told of their noise"
        )
    versions = Counter(
        series for series, _ in {(figure.series, figure.version) for figure in history.figures}
    )
    if renewed := sum(count > 1 for count in versions.values()):
        yield f"{renewed} figures begin anew where their benchmark's own version changed"
    unknown = {
        figure.metric
        for figure in history.figures
        if (terms := figure.terms(policy)).direction == "none" and not terms.metric.known
    }
    if unknown:
        yield (
            f"{len(unknown)} metrics that nobody declares are neither better nor worse:"
            f" {listed(unknown)}"
        )


def _changes(
    matrix: Series, exact: Sequence[bool | None], smallest: Sequence[float]
) -> list[list[Change]]:
    """`changes`, large matrices on all cores."""
    workers = os.cpu_count() or 1
    if matrix.size < LARGE or workers == 1:
        return changes(matrix, exact, smallest)
    parts = np.array_split(np.arange(matrix.shape[1]), 4 * workers)
    context = multiprocessing.get_context("spawn")  # DuckDB's threads do not survive a fork
    with ProcessPoolExecutor(workers, context) as pool:
        columns = [matrix[:, part] for part in parts]
        rules, least = ([[each[i] for i in part] for part in parts] for each in (exact, smallest))
        return list(chain(*pool.map(changes, columns, rules, least)))
