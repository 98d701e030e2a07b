"""gate.json and history.json, read again: as far as issues need them."""

import json
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from actprune_common.errors import InputError
from actprune_common.validation import first_error

Document = TypeVar("Document", bound=BaseModel)


class Effect(BaseModel):
    """How far head is from base."""

    base: float
    head: float
    change: float | None
    absolute: bool = False


class Figure(BaseModel):
    """Which figure a finding is about."""

    name: str
    benchmark: str
    params: dict[str, str]
    metric: str
    unit: str


class GateFinding(Figure):
    """A finding of gate.json."""

    outcome: str
    word: str
    fails: bool
    effect: Effect | None = None
    detail: str = ""
    bound: str = ""
    owner: str = ""
    reason: str = ""
    command: str = ""


class HistoryFinding(Figure):
    """A finding of history.json."""

    machine: str
    kind: str
    before: float
    after: float
    effect: float
    range: str
    regression: bool
    lasting: bool


class Gate(BaseModel):
    """gate.json, as far as issues need it."""

    base: str
    head: str
    machine: str
    findings: list[GateFinding]


class History(BaseModel):
    """history.json, as far as issues need it."""

    findings: list[HistoryFinding]


def read(path: Path, model: type[Document]) -> Document:
    """gate.json or history.json. Raises InputError for what is none."""
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as problem:
        raise InputError(f"{path}: cannot be read: {problem.strerror}") from None
    except ValidationError as problem:
        raise InputError(f"{path}: {first_error(problem)}") from None


def identity(machine: str, finding: Figure) -> str:
    """A digest of the machine and the figure."""
    what = [machine, finding.benchmark, sorted(finding.params.items()), finding.metric]
    return sha256(json.dumps(what).encode()).hexdigest()[:16]
