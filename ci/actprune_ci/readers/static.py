"""The static figures of GPU kernels: {"schema": 1, "environment": {...}, "records": [...]}, and
`metrics` where it has some of its own (docs/results-format.md).

A record is one variant of a kernel compiled for one architecture. Its texts and its launch options
say which: they are parameters. Its other numbers are the figures: registers, spills, instructions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from actprune_ci.model.metrics import METRICS, Metric
from actprune_ci.model.reading import Several, validated
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.readers.fields import declared, measured, of_environment, unit_of
from actprune_common.errors import InputError

OPTIONS = ("arch", "num_warps", "num_stages")
"""Numbers that were chosen, not measured."""


class _StaticRecord(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    kernel: str
    variant: str
    arch: int


class _StaticFile(BaseModel):
    model_config = ConfigDict(strict=True)
    environment: dict[str, Any]
    records: Several[_StaticRecord]
    metrics: Any = None


def runs(document: Mapping[str, Any], path: Path) -> tuple[Run, ...]:
    """The one run of the file. Raises InputError, which names the field that is wrong."""
    schema = document.get("schema")
    if schema != 1 or isinstance(schema, bool):
        raise InputError(f"{path}: schema: expected 1, got {schema!r:.60}")
    file = validated(path, _StaticFile.model_validate, document)
    metrics = declared(file.metrics, f"{path}: metrics")
    measurements = [m for record in file.records for m in _measurements(record, metrics)]
    return (of_environment(file.environment, measurements, path, metrics),)


def _measurements(record: _StaticRecord, metrics: Mapping[str, Metric]) -> list[Measurement]:
    fields = record.model_dump(exclude={"kernel"})
    params = tuple(
        (name, str(value))
        for name, value in fields.items()
        if isinstance(value, str) or name in OPTIONS
    )
    known = {*METRICS, *metrics}
    name = f"static.{record.kernel.replace(' ', '.')}"
    return [
        measured(Key(name, params, metric, _unit(metric, metrics)), [value])
        for metric, value in fields.items()
        if metric not in OPTIONS and not isinstance(value, str)
        # a flag or an object is a figure only where the name is a figure's, and has then failed
        if metric in known or (isinstance(value, (int, float)) and not isinstance(value, bool))
    ]


def _unit(metric: str, metrics: Mapping[str, Metric]) -> str:
    declared = metrics.get(metric)
    return (declared.unit if declared else "") or unit_of(metric)
