"""The history of a branch with its policy and triage: what `history` tells and `publish` draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from actprune_ci.history.coverage import GapError, coverage
from actprune_ci.history.finding import HistoryFinding
from actprune_ci.history.history import about, error_rates, found_in, looked_at
from actprune_ci.history.series import History, branch_commits, load
from actprune_ci.judge.policy import Policy
from actprune_ci.triage.applied import acknowledged, notes, rebased
from actprune_ci.triage.entries import Triage
from actprune_ci.triage.order import Order

TRACE = 60
"""Values of a figure, the newest, that go with its change."""


@dataclass(frozen=True)
class Analysis:
    """A branch's history, what changed in it, and what must be said of both."""

    branch: str
    history: History
    findings: Sequence[HistoryFinding]
    notes: Sequence[str]

    @property
    def document(self) -> dict[str, Any]:
        """For JSON (schema 2), with every figure that was looked at."""
        return {
            "schema": 2,
            "branch": self.branch,
            "commits": self.history.commits,
            "notes": self.notes,
            "figures": looked_at(self.history),
            "findings": [
                {**each.document, "trace": trace(self.history, each)} for each in self.findings
            ],
        }


def analysed(
    store: str,
    repo: Path,
    branch: str,
    benchmarks: str,
    policy: Policy,
    triage: Triage,
    allow_missing: bool = False,
    smallest: float | None = None,
    trials: int = 0,
) -> Analysis:
    """Analyse the history of a branch; with `trials`, how often that is wrong on its series.

    Raises GapError where a verdict would rest on commits that the clone lacks, unless they are
    allowed to be missing, and what actprune_ci.history.series.load raises.
    """
    commits = branch_commits(repo, branch)
    covered = coverage(store, repo, commits)
    if covered.gap and not allow_missing:
        raise GapError(covered.gap)
    order = Order(commits)
    history = rebased(load(store, commits, benchmarks), triage, order)
    changed = found_in(history, policy, smallest)
    found = acknowledged(changed.findings, triage, order)
    said = (
        *covered.notes(),
        *changed.notes(history),
        *about(history, policy),
        *notes(triage, history, found, order),
        *((error_rates(history, policy, trials),) if trials else ()),
    )
    return Analysis(branch, history, found, said)


def trace(history: History, found: HistoryFinding) -> list[float]:
    """The newest values of a finding's figure, oldest first, in its unit."""
    values = history.values[:, found.column].tolist()
    return [float(f"{value:.6g}") for value in values if isfinite(value)][-TRACE:]
