"""results.json: its records, its reader and its writer (docs/results-format.md)."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from actprune.errors import InputError
from actprune.training.checkpoint import write_json

SCHEMA = 1
SCHEMA_FILE = Path(__file__).with_name("results.schema.json")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Environment(_Record):
    """The code, the machine and the libraries of a run."""

    date: str
    command: str
    commit: str | None
    dirty: bool | None
    fingerprint: str
    platform: str
    cpu: str
    cores: int
    memory_bytes: int
    isa: str
    gpu: str | None
    driver: str | None
    threads: int
    python: str
    actprune: str
    torch: str
    numpy: str | None
    triton: str | None


class KernelRecord(_Record):
    """One operation of one format on one shape."""

    spec: str
    op: Literal["compress", "grad_weight", "linear"]
    layer: str
    rows: int
    features: int
    out_features: int
    dtype: str
    device: str
    backend: str
    samples_ms: list[float]
    median_ms: float | None
    ratio_to_dense: float | None
    nbytes: int
    nbytes_ratio: float
    rel_error: float | None
    ok: bool
    error: str | None
    command: str


class TrainingRecord(_Record):
    """One training run."""

    spec: str
    model: str
    data: str
    data_digest: str
    seed: int
    epochs: int
    steps: int
    batch_size: int
    step_ms: float
    step_samples_ms: list[float]
    ratio_to_dense: float
    saved_bytes: int
    saved_ratio: float
    predicted_peak_bytes: int
    measured_peak_bytes: int | None
    accuracy: float
    accuracy_per_epoch: list[float]
    accuracy_delta: float
    grad_cosine: float | None
    command: str


class Results(_Record):
    """A results.json."""

    schema_: Literal[1] = Field(alias="schema")
    environment: Environment
    kernels: list[KernelRecord]
    training: list[TrainingRecord]


def json_schema() -> str:
    """The JSON Schema of results.json, as shipped in results.schema.json."""
    return json.dumps(Results.model_json_schema(by_alias=True), indent=2) + "\n"


def read(path: Path) -> Results:
    """The results at `path`; InputError names the file and the first field that is wrong."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror})") from None
    except ValueError as problem:
        raise InputError(f"{path}: not JSON ({problem})") from None
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else None
        raise InputError(f"{path}: expected results of schema {SCHEMA}, got schema {found!r}")
    return _checked(values, str(path))


def write(path: Path, results: Results) -> None:
    """Write `results` whole or not at all."""
    write_json(path, results.model_dump(mode="json", by_alias=True))


def make(
    environment: dict[str, Any], kernels: list[dict[str, Any]], training: list[dict[str, Any]]
) -> Results:
    """Results from plain records."""
    values = {"schema": SCHEMA, "environment": environment, "kernels": kernels}
    return _checked({**values, "training": training}, "results")


def _checked(values: dict[str, Any], where: str) -> Results:
    try:
        return Results.model_validate(values)
    except ValidationError as problem:
        error = problem.errors()[0]
        key = ".".join(map(str, error["loc"]))
        raise InputError(f"{where}: {key}: {error['msg'].lower()}") from None
