"""gate.json and history.json, read again: as far as issues, pages and triage need them."""

import json
from hashlib import sha256

from pydantic import BaseModel, dataclasses

from actprune_ci.model.runs import Key


@dataclasses.dataclass(frozen=True)
class Acknowledged:
    """What somebody decided about a change (ci/triage.yml)."""

    action: str
    reason: str
    author: str
    date: str
    until: str = ""

    def __str__(self) -> str:
        until = f" until {self.until}" if self.until else ""
        return f"{self.action}{until}: {self.reason} ({self.author}, {self.date})"


class EntryEffect(BaseModel):
    """How far head is from base."""

    base: float
    head: float
    change: float | None
    absolute: bool = False


class Entry(BaseModel):
    """What both documents say of a finding: which figure it is about."""

    name: str
    benchmark: str
    params: dict[str, str]
    metric: str
    unit: str
    version: str = ""

    @property
    def key(self) -> Key:
        """The figure, wherever it is measured."""
        return Key(self.benchmark, tuple(self.params.items()), self.metric, self.unit, self.version)

    def identity(self, machine: str) -> str:
        """A digest of the machine and the figure."""
        what = [machine, self.benchmark, sorted(self.params.items()), self.metric]
        return sha256(json.dumps(what).encode()).hexdigest()[:16]


class GateTrace(BaseModel):
    """What a finding's sparkline shows."""

    of: str = ""
    values: list[float | None] = []


class GateEntry(Entry):
    """A finding of gate.json."""

    outcome: str
    word: str
    fails: bool
    severity: str = "error"
    effect: EntryEffect | None = None
    detail: str = ""
    bound: str = ""
    owner: str = ""
    reason: str = ""
    command: str = ""
    trace: GateTrace = GateTrace()
    acknowledged: Acknowledged | None = None

    @property
    def bad(self) -> bool:
        """Whether it is a change for the worse, whoever minds."""
        return self.outcome in ("slower", "vanished", "failed", "over budget")


class Measured(Entry):
    """A figure that a history looked at, on one machine in one environment."""

    machine: str
    environment: str = ""
    since: str = ""
    newest: str
    """The last commit at which it was measured."""
    value: float
    """There."""
    recent: list[tuple[str, float]] = []
    """Commits and values that tell where it is now, oldest first: several of a noisy figure."""


class HistoryEntry(Entry):
    """A finding of history.json."""

    machine: str
    environment: str = ""
    since: str = ""
    kind: str
    before: float
    after: float
    effect: float
    size: str = ""
    range: str
    regression: bool
    lasting: bool
    superseded: bool = False
    standing: str = "confirmed"
    """suspected: the next nights settle it; shared: nearly all figures of the machine moved so."""
    severity: str = "error"
    owner: str = ""
    reason: str = ""
    threshold: float | None = None
    trace: list[float] = []
    acknowledged: Acknowledged | None = None


class GateJson(BaseModel):
    """gate.json."""

    base: str
    head: str
    machine: str
    findings: list[GateEntry]


class HistoryJson(BaseModel):
    """history.json; one of schema 1 has its findings alone."""

    branch: str = ""
    commits: list[str] = []
    """Measured ones, oldest first."""
    notes: list[str] = []
    figures: list[Measured] = []
    """All that were looked at."""
    findings: list[HistoryEntry]
