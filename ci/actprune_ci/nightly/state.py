"""The state of a night, DIR/nightly.json: rewritten whole before and after each step."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from actprune_ci.files import write_whole
from actprune_ci.model.reading import first_error
from actprune_common.errors import InputError

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
class State:
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


_STATE = TypeAdapter(State)


def load(folder: Path) -> State | None:
    """The state in a folder; None where there is none. InputError for a file that is none."""
    path = folder / FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise InputError(f"{path}: cannot be read: {problem.strerror}") from None
    try:
        document = json.loads(text)
        if not isinstance(document, dict) or document.pop("schema", None) != SCHEMA:
            raise InputError(f"{path}: expected a night's state with schema {SCHEMA}")
        return _STATE.validate_python(document)
    except ValidationError as problem:
        raise InputError(f"{path}: {first_error(problem)}") from None
    except (ValueError, RecursionError) as problem:
        if isinstance(problem, InputError):
            raise
        raise InputError(f"{path}: not JSON: {problem}") from None


def save(folder: Path, state: State) -> None:
    """Write the state, whole or not at all. Raises InputError where the disk refuses."""
    document = {"schema": SCHEMA, **asdict(state)}
    write_whole(folder / FILE, json.dumps(document, ensure_ascii=False, indent=1) + "\n")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The folder for this process alone. Raises InputError where another has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("wb")
    except OSError as problem:
        raise InputError(f"{folder}: cannot be written: {problem.strerror}") from None
    with handle:
        try:
            flock(handle, LOCK_EX | LOCK_NB)
        except OSError:
            raise InputError(f"{folder}: another night is running in it") from None
        yield
