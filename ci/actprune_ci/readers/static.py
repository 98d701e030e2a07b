"""The static figures of GPU kernels: {"schema": 1, "environment": {...}, "records": [...]}.

A record is one variant of a kernel compiled for one architecture. Its texts and its launch options
say which: they are parameters. Its other numbers are the figures: registers, spills, instructions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from actprune_ci.model.reading import validated
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.readers.fields import measured, of_environment, unit_of
from actprune_common.errors import InputError

OPTIONS = ("arch", "num_warps", "num_stages")
"""Numbers that were chosen, not measured."""


class _StaticRecord(BaseModel):
    model_config = ConfigDict(extra="allow")
    kernel: str
    variant: str
    arch: int


class _StaticFile(BaseModel):
    environment: dict[str, Any]
    records: list[_StaticRecord]


def runs(document: Mapping[str, Any], path: Path) -> tuple[Run, ...]:
    """The one run of the file. Raises InputError, which names the field that is wrong."""
    if document.get("schema") != 1:
        raise InputError(f"{path}: schema: expected 1, got {document.get('schema')!r}")
    file = validated(path, _StaticFile.model_validate, document)
    measurements = [m for record in file.records for m in _measurements(record)]
    return (of_environment(file.environment, measurements, path),)


def _measurements(record: _StaticRecord) -> list[Measurement]:
    fields = record.model_dump(exclude={"kernel"})
    params = tuple(
        (name, str(value))
        for name, value in fields.items()
        if isinstance(value, str) or name in OPTIONS
    )
    name = f"static.{record.kernel.replace(' ', '.')}"
    return [
        measured(Key(name, params, metric, unit_of(metric)), [value])
        for metric, value in fields.items()
        if isinstance(value, (int, float)) and metric not in OPTIONS
    ]
