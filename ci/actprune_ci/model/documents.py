"""gate.json and history.json, read again: as far as issues need them."""

import json
from hashlib import sha256

from pydantic import BaseModel


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

    def identity(self, machine: str) -> str:
        """A digest of the machine and the figure."""
        what = [machine, self.benchmark, sorted(self.params.items()), self.metric]
        return sha256(json.dumps(what).encode()).hexdigest()[:16]


class GateEntry(Entry):
    """A finding of gate.json."""

    outcome: str
    word: str
    fails: bool
    effect: EntryEffect | None = None
    detail: str = ""
    bound: str = ""
    owner: str = ""
    reason: str = ""
    command: str = ""


class HistoryEntry(Entry):
    """A finding of history.json."""

    machine: str
    kind: str
    before: float
    after: float
    effect: float
    range: str
    regression: bool
    lasting: bool


class GateJson(BaseModel):
    """gate.json, as far as issues need it."""

    base: str
    head: str
    machine: str
    findings: list[GateEntry]


class HistoryJson(BaseModel):
    """history.json, as far as issues need it."""

    findings: list[HistoryEntry]
