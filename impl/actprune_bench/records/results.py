"""results.json: its records, its reader and its writer (docs/results-format.md)."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from actprune_bench.records.environment import SAME
from actprune_common.errors import InputError
from actprune_common.files import write_whole

SCHEMA = 1
_LISTS = ("kernels", "training", "not_done")
SCHEMA_FILE = Path(__file__).with_name("results.schema.json")


def _null_unless_finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _some_text(value: str) -> str:
    if not value:
        raise ValueError("expected some text, got none")
    return value


Text = Annotated[str, AfterValidator(_some_text)]
Figure = Annotated[float | None, BeforeValidator(_null_unless_finite)]
"""A number, or null where there is none: JSON has no NaN."""


class _Record(BaseModel):
    # A record holds at least its fields; what else stands in it is kept.
    model_config = ConfigDict(frozen=True, strict=True, extra="allow", allow_inf_nan=False)


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
    allocator: str | None = None  # absent in older files
    python: str
    actprune: str
    torch: str
    numpy: str | None
    triton: str | None


class KernelRecord(_Record):
    """One operation of one format on one layer; no times where its check failed."""

    spec: Text
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
    rel_error: Figure
    ok: bool
    error: str | None
    command: str

    @model_validator(mode="after")
    def _timed_where_correct(self) -> "KernelRecord":
        for key in ("median_ms", "ratio_to_dense"):
            if (getattr(self, key) is not None) != self.ok:
                expected = "a number where ok is true" if self.ok else "null where ok is false"
                raise ValueError(f"{key}: expected {expected}, got {getattr(self, key)}")
        return self


class LayerRecord(_Record):
    """One layer's weight gradient with pruning against that without (measuring.fidelity)."""

    layer: Text
    cosine: Figure
    norm_ratio: Figure
    rel_error: Figure
    bias: Figure
    draws: int


class TrainingRecord(_Record):
    """One training run; its ratios are to dense of the same seed."""

    spec: Text
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
    grad_cosine: Figure
    layers: list[LayerRecord] = []
    """Empty where no gradient is approximate, and in files from before there was this field."""
    command: str


class NotDone(_Record):
    """A run of a sweep that came to nothing, and why (docs/sweep.md)."""

    spec: Text
    model: str
    data: str
    seed: int
    outcome: str
    why: str


class Results(_Record):
    """A results.json."""

    schema_: Literal[1] = Field(alias="schema")
    environment: Environment
    kernels: list[KernelRecord]
    training: list[TrainingRecord]
    not_done: list[NotDone] = []
    """Written by sweeps alone."""


def json_schema() -> str:
    """The JSON Schema of results.json, as shipped in results.schema.json."""
    return json.dumps(Results.model_json_schema(by_alias=True), indent=2) + "\n"


def read(path: Path) -> Results:
    """The results at `path`; InputError names the file and the first field that is wrong."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror})") from None
    except (ValueError, RecursionError) as problem:  # bad UTF-8, bad JSON
        raise InputError(f"{path}: not JSON ({problem})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected an object with schema, environment, kernels, training")
    if "schema" in values and values["schema"] != SCHEMA:
        raise InputError(f"{path}: schema: expected {SCHEMA}, got {values['schema']!r}")
    return _checked(values, str(path))


def write(path: Path, results: Results) -> None:
    """Write `results` whole or not at all, a line per record."""
    values = results.model_dump(mode="json", by_alias=True)
    parts = [
        f'"schema": {values["schema"]}',
        f'"environment": {_line(values["environment"])}',
        *(
            f'"{key}": [{_lines(values[key])}]'
            for key in _LISTS
            if values[key] or key != "not_done"
        ),
    ]
    write_whole(path, ("{\n" + ",\n".join(parts) + "\n}\n").encode())


def make(
    environment: Mapping[str, Any],
    kernels: Sequence[Mapping[str, Any]],
    training: Sequence[Mapping[str, Any]],
    not_done: Sequence[Mapping[str, Any]] = (),
) -> Results:
    """Results from plain records."""
    values = {"schema": SCHEMA, "environment": dict(environment)}
    records = {"kernels": list(map(dict, kernels)), "training": list(map(dict, training))}
    records["not_done"] = list(map(dict, not_done))
    return _checked({**values, **records}, "results")


def merge(parts: Sequence[Results]) -> Results:
    """All records of several files of one machine, one commit and one torch.

    Raises InputError where they are of several: their ratios would say nothing together.
    """
    first = parts[0]
    for part in parts[1:]:
        for key in SAME:
            one, other = getattr(first.environment, key), getattr(part.environment, key)
            if one != other:
                raise InputError(f"{key}: the files differ ({one!r} and {other!r}): no common page")
    return first.model_copy(
        update={
            "kernels": [record for part in parts for record in part.kernels],
            "training": [record for part in parts for record in part.training],
            "not_done": [record for part in parts for record in part.not_done],
        }
    )


def _checked(values: dict[str, Any], where: str) -> Results:
    try:
        return Results.model_validate(values)
    except ValidationError as problem:
        error = problem.errors()[0]
    loc = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in error["loc"]).lstrip(".")
    if error["type"] == "missing":
        raise InputError(f"{where}: {loc}: is missing")
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "should")
    got = "" if error["type"] == "value_error" else f", got {_short(error['input'])}"
    raise InputError(f"{where}: {loc}: {message}{got}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _line(value: object) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def _lines(records: Sequence[object]) -> str:
    return "\n" + ",\n".join(map(_line, records)) + "\n" if records else ""
