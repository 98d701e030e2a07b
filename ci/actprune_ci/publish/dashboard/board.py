"""All that the pages show: a branch's history by causes, the gates, the machines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from actprune_ci.history.finding import HistoryFinding
from actprune_ci.history.series import History
from actprune_ci.model.documents import GateJson, HistoryEntry, HistoryJson
from actprune_ci.publish.causes import Told, causes, identified
from actprune_ci.publish.commits import Repository
from actprune_ci.publish.culprits import Culprits, narrowed
from actprune_ci.publish.dashboard.ledger import Ledger
from actprune_ci.publish.dashboard.machines import MachineRuns, machines
from actprune_ci.publish.story import Story, told
from actprune_ci.triage.analysis import Analysis


@dataclass(frozen=True)
class Board:
    """All that the pages show."""

    analysis: Analysis
    machines: Sequence[MachineRuns]
    gates: Sequence[Mapping[str, Any]]
    """The reports of the gate, as its JSON."""
    repository: Repository
    culprits: Culprits
    ledger: Ledger
    """The causes that were told before."""

    @property
    def branch(self) -> str:
        """The branch, or the commit that it ends with."""
        return self.analysis.branch

    @property
    def history(self) -> History:
        """The figures over commits."""
        return self.analysis.history

    @property
    def findings(self) -> Sequence[HistoryFinding]:
        """All changes."""
        return self.analysis.findings

    @cached_property
    def stories(self) -> list[Story]:
        """What is worse and still holds, by its cause, the newest first."""
        history = HistoryJson.model_validate(self.analysis.document)
        gates = [GateJson.model_validate(gate) for gate in self.gates]
        order = self.repository.order(gates[0] if gates else None, history)
        found = narrowed(causes(gates, history, order), self.culprits, order)
        known = [each.known for each in self.ledger.causes]
        return [told(cause, self.repository) for cause, _ in identified(found, known, order)]

    @property
    def lasting(self) -> list[HistoryFinding]:
        """Regressions that still hold."""
        return [found for found in self.findings if found.regression and found.lasting]

    @property
    def acknowledged(self) -> list[HistoryFinding]:
        """Those of them that somebody decided about."""
        return [found for found in self.lasting if found.acknowledged]

    def standing(self, standing: str) -> list[HistoryFinding]:
        """Those of them that stand so (see HistoryFinding.standing), and nobody decided about."""
        return [f for f in self.lasting if f.standing == standing and not f.acknowledged]

    @cached_property
    def _by_place(self) -> dict[tuple[object, ...], HistoryFinding]:
        return {_place(each.figure, each.range): each for each in self.findings}

    def finding(self, figure: Told) -> HistoryFinding | None:
        """A cause's figure as the history found it; None for one that the gate alone knows."""
        if not isinstance(figure.entry, HistoryEntry):
            return None
        return self._by_place.get(_place(figure.entry, figure.entry.range))


def _place(figure: Any, where: str) -> tuple[object, ...]:
    own = (figure.machine, figure.environment, figure.name, figure.metric)
    return *own, figure.version, figure.since, where


def board(
    store: str | Path,
    analysis: Analysis,
    repository: Repository,
    gates: Sequence[Mapping[str, Any]] = (),
    culprits: Culprits = Culprits(),
    ledger: Ledger = Ledger(),
) -> Board:
    """Everything of a branch that was analysed."""
    return Board(analysis, machines(store), gates, repository, culprits, ledger)
