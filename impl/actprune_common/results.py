"""results.json: its records, its reader and its writer (docs/results-format.md).

`python -m actprune_common.results FILE` prints a line per spec; exit code 2 on a bad file.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from actprune_common.errors import InputError, expected
from actprune_common.files import by_lines, contents, json_value, write_whole
from actprune_common.machine import SAME
from actprune_common.validation import first_error, named, short

SCHEMA: Literal[1] = 1
Op = Literal["compress", "grad_weight", "linear"]
OPS: tuple[Op, ...] = ("compress", "grad_weight", "linear")


def _null_unless_finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _some_text(value: str) -> str:
    if not value:
        raise ValueError("expected some text, got none")
    return value


Text = Annotated[str, AfterValidator(_some_text)]
Figure = Annotated[float | None, BeforeValidator(_null_unless_finite)]
"""A number, or null where there is none: JSON has no NaN."""


class Record(BaseModel):
    """What holds at least its fields, and keeps what else stands in it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", allow_inf_nan=False)


class Environment(Record):
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


class KernelRecord(Record):
    """One operation of one format on one layer; no times where its check failed."""

    spec: Text
    op: Op
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


class LayerRecord(Record):
    """One layer's weight gradient with pruning against that without (actprune.inspect.fidelity)."""

    layer: Text
    cosine: Figure
    norm_ratio: Figure
    rel_error: Figure
    bias: Figure
    draws: int


class RunRecord(Record):
    """One training run, by itself."""

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
    saved_bytes: int
    predicted_peak_bytes: int
    measured_peak_bytes: int | None
    accuracy: float
    accuracy_per_epoch: list[float]
    grad_cosine: Figure
    layers: list[LayerRecord] = []
    """Empty where no gradient is approximate, and in files from before there was this field."""
    command: str


class TrainingRecord(RunRecord):
    """One training run beside the dense run of the same seed."""

    ratio_to_dense: float
    saved_ratio: float
    accuracy_delta: float


Made = TypeVar("Made")


class NotDone(Record):
    """A run of a sweep that came to nothing, and why (docs/sweep.md)."""

    spec: Text
    model: str
    data: str
    seed: int
    outcome: str
    why: str


class MetricRecord(Record):
    """What a figure of these records means (the harness's registry has ours)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
    direction: Literal["lower", "higher", "none"] = "none"
    unit: str = ""
    exact: bool = False
    scale: Literal["ratio", "difference"] = "ratio"
    smallest: float | None = None


class Results(Record):
    """A results.json."""

    schema_: Literal[1] = Field(alias="schema")
    environment: Environment
    kernels: Annotated[list[KernelRecord], FailFast()]
    training: Annotated[list[TrainingRecord], FailFast()]
    not_done: list[NotDone] = []
    """Of sweeps, and of comparisons where a spec cannot be compiled."""
    metrics: dict[str, MetricRecord] = {}
    """Of figures that the harness does not know, by name."""

    @property
    def interleaved(self) -> bool:
        """Whether all formats took turns; the cells of a sweep do not."""
        return bool(getattr(self.environment, "interleaved", True))


def read(path: Path) -> Results:
    """The results at `path`; InputError names the file and the first field that is wrong."""
    values = json_value(contents(path), path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected an object with schema, environment, kernels, training")
    if values.get("schema") is True:  # which equals 1
        raise expected(f"{path}: schema", str(SCHEMA), "True")
    return validate(values, str(path))


def validate(values: dict[str, Any], where: str) -> Results:
    """Results from plain values; InputError names `where` and the first field that is wrong."""
    try:
        return Results.model_validate(values)
    except ValidationError as problem:
        raise InputError(f"{where}: {_first_error(problem)}") from None


def read_record(path: Path, kind: type[Made], remove: Path) -> Made:
    """A record that stands alone; InputError where it is damaged says what to `remove`."""
    try:
        return TypeAdapter(kind).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as problem:
        why = _first_error(problem) if isinstance(problem, ValidationError) else problem
        what = "it" if remove == path else remove
        raise InputError(f"{path}: not readable ({why}); remove {what}") from None


def write(path: Path, results: Results) -> None:
    """Write `results` whole or not at all, a line per record."""
    none = {name for name in ("not_done", "metrics") if not getattr(results, name)}
    write_whole(path, by_lines(results.model_dump(mode="json", by_alias=True, exclude=none)))


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
    lists = ("kernels", "training", "not_done")
    together: dict[str, Any] = {
        key: [record for part in parts for record in getattr(part, key)] for key in lists
    }
    metrics: dict[str, MetricRecord] = {}
    for name, metric in (item for part in parts for item in part.metrics.items()):
        if metrics.setdefault(name, metric) != metric:
            raise InputError(f"metrics.{name}: the files differ in what it means: no common page")
    return first.model_copy(update={**together, "metrics": metrics})


def main(arguments: Sequence[str]) -> int:
    """``arguments`` without the program's name; returns the exit code."""
    from actprune_common.summary import table  # which is made of this module's records

    try:
        if len(arguments) != 1:
            raise InputError("usage: python -m actprune_common.results FILE")
        sys.stdout.write(table(read(Path(arguments[0]))) + "\n")
    except InputError as problem:
        sys.stderr.write(f"{problem}\n")
        return 2
    return 0


def _first_error(problem: ValidationError) -> str:
    """As of a file that a program wrote: nobody gives its keys."""
    error = problem.errors()[0]
    if error["type"] == "missing":
        return f"{named(error['loc'])}: is missing"
    if error["type"] == "model_type":
        return f"{named(error['loc'])}: expected an object, got {short(error['input'])}"
    return first_error(problem)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
