"""Triage applied: what the gate and a history find, with what somebody decided about it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from actprune_ci.history.finding import HistoryFinding
from actprune_ci.history.series import History, HistoryFigure
from actprune_ci.judge.report import Finding
from actprune_ci.model.documents import Acknowledged
from actprune_ci.model.runs import Key
from actprune_ci.triage.entries import Entry, Triage
from actprune_ci.triage.order import Order, between


class Judgement:
    """What the gate asks of each finding; it is called once the machine and commits are known."""

    def __init__(self, triage: Triage, repo: Path) -> None:
        self._triage, self._repo = triage, repo
        self._orders: dict[tuple[str, str], Order] = {}

    def __call__(self, finding: Finding, machine: str, base: str, head: str) -> Acknowledged | None:
        """Who settled a finding and why; budgets are the policy's, and are never settled here."""
        if not (base and finding.alert and self._triage.entries) or finding.bound:
            return None
        if (base, head) not in self._orders:
            self._orders[base, head] = between(self._repo, base, head)
        order = self._orders[base, head]
        return settled(self._triage, finding.key, machine, (base, head), order)


def settled(
    triage: Triage, key: Key, machine: str, change: tuple[str, str], order: Order
) -> Acknowledged | None:
    """The first entry that settles the change of a figure in (good, bad]; None without one."""
    for entry in triage.entries:
        if not entry.about(key, machine) or entry.expired(order):
            continue
        crossed = entry.action == "baseline" and order.overlap(entry.since, "..".join(change))
        if crossed or (entry.action != "baseline" and entry.covers(*change, order)):
            return entry.told
    return None


def acknowledged(
    found: Sequence[HistoryFinding], triage: Triage, order: Order
) -> list[HistoryFinding]:
    """A history's findings, each with the entry that settles it; those that are settled last."""
    made = []
    for each in found:
        figure = each.figure
        said = settled(triage, figure.key, figure.machine, (each.good, each.bad), order)
        made.append(replace(each, acknowledged=said) if said else each)
    return sorted(made, key=lambda each: each.acknowledged is not None)


def rebased(history: History, triage: Triage, order: Order) -> History:
    """A history whose figures begin anew at each baseline that is set for them."""
    entries = [entry for entry in triage.entries if entry.action == "baseline"]
    rows = [_row(entry.since, history, order) for entry in entries]
    figures: list[HistoryFigure] = []
    columns = []
    for figure, column in zip(history.figures, history.values.T, strict=True):
        cuts = {
            row: entry.since
            for entry, row in zip(entries, rows, strict=True)
            if row is not None and entry.about(figure.key, figure.machine)
        }
        begins = [0, *sorted(cuts), len(column)]
        for first, end in pairwise(begins):
            part = np.full(len(column), np.nan)
            part[first:end] = column[first:end]
            if np.isfinite(part).any():
                figures.append(replace(figure, since=cuts.get(first, "")))
                columns.append(part)
    return replace(history, figures=tuple(figures), values=np.array(columns).T)


def _row(commit: str, history: History, order: Order) -> int | None:
    """The first measured commit at or after one; None where it is unknown, or none is after it."""
    start = order.place(commit)
    if start is None:
        return None
    places = enumerate(order.place(each) for each in history.commits)
    return next((row for row, at in places if at is not None and at >= start), None)


def notes(
    triage: Triage, history: History, found: Sequence[HistoryFinding], order: Order
) -> Iterator[str]:
    """What is to be said of entries: those that are over, unknown, or fit nothing any more."""
    for entry in triage.entries:
        unknown = [name for name in _names(entry) if order.place(name) is None]
        of_it = [f for f in found if entry.about(f.figure.key, f.figure.machine)]
        if unknown:
            yield f"triage: {entry.name}: commit {', '.join(unknown)} is none of this branch"
        elif not any(entry.about(figure.key, figure.machine) for figure in history.figures):
            yield f"triage: {entry.name}: fits no figure that was looked at"
        elif entry.action == "baseline":
            continue
        elif entry.expired(order):
            yield f"triage: {entry.name}: is over since {entry.until}; what it ignored counts again"
        elif not any(entry.covers(f.good, f.bad, order) for f in of_it):
            yield f"triage: {entry.name}: fits no change any more, and can go"


def _names(entry: Entry) -> list[str]:
    return [name for name in (*entry.change.split(".."), entry.since) if name]
