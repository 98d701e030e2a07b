"""The state of a night, DIR/nightly.json: rewritten whole before and after each step."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from actprune_ci.model.reading import validated
from actprune_common.errors import InputError
from actprune_common.files import contents, json_value, write_whole

FILE = "nightly.json"
SCHEMA = 1
Status = Literal["running", "ok", "failed", "skipped", "lost"]
ENDED = ("ok", "failed", "skipped")


@dataclass
class Done:
    """What became of a step."""

    status: Status
    """running: it was cut off; lost: a GPU disappeared meanwhile. Both are run anew."""
    command: list[str] = field(default_factory=list)
    code: int | None = None
    seconds: float = 0.0
    attempts: int = 0
    reason: str = ""
    """Why it failed or was skipped."""
    log: str = ""
    tail: str = ""
    """The end of its log, where it failed."""
    notes: list[str] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    """Clocks, throttling, temperature, load."""


@dataclass
class NightState:
    """All that is known of a night."""

    commit: str
    base: str
    """Empty where there is no earlier commit."""
    machine: str
    token: str
    """What marks the night's processes."""
    began: str
    """ISO 8601, UTC."""
    gpus: int = 0
    """How many there must be: what the night asks for, or what it began with."""
    steps: dict[str, Done] = field(default_factory=dict)
    code: int | None = None
    """The exit code, once the night is over."""
    verdict: str = ""
    notes: list[str] = field(default_factory=list)


_STATE = TypeAdapter(NightState)


def load(folder: Path) -> NightState | None:
    """The state in a folder; None where there is none. InputError for a file that is none."""
    path = folder / FILE
    if not path.exists():
        return None
    document = json_value(contents(path), path)
    if not isinstance(document, dict) or document.pop("schema", None) != SCHEMA:
        raise InputError(f"{path}: expected a night's state with schema {SCHEMA}")
    return validated(path, _STATE.validate_python, document)


def save(folder: Path, state: NightState) -> None:
    """Write the state, whole or not at all. Raises InputError where the disk refuses."""
    document = {"schema": SCHEMA, **asdict(state)}
    write_whole(folder / FILE, json.dumps(document, ensure_ascii=False, indent=1) + "\n")
