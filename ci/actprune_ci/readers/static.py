"""The static figures of GPU kernels: {"schema": 1, "environment": {...}, "records": [...]}.

A record is one kernel compiled for one architecture; every whole number in it but the architecture
is a figure: registers, spills, shared bytes, instructions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from actprune_ci.model import CiError, Key, Measurement, Run
from actprune_ci.readers.fields import checked, measured, of_environment, unit_of

PARAMS = ("module", "variant", "arch", "num_stages")
OPTIONS = ("num_warps", "num_stages")
"""Of the launch: chosen, not measured."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow")
    kernel: str
    module: str
    variant: str
    arch: int
    num_stages: int = 0


class _File(BaseModel):
    schema_: Literal[1]
    environment: dict[str, Any]
    records: list[_Record]


def recognises(document: Mapping[str, Any]) -> bool:
    """Whether the document holds static figures."""
    return "environment" in document and "records" in document


def runs(document: Mapping[str, Any], path: Path) -> tuple[Run, ...]:
    """The one run of the file. Raises CiError, which names the field that is wrong."""
    if document.get("schema") != 1:
        raise CiError(f"{path}: schema: expected 1, got {document.get('schema')!r}")
    file = checked(_File, {**document, "schema_": 1}, path)
    measurements = [m for record in file.records for m in _measurements(record)]
    return (of_environment(file.environment, measurements, path),)


def _measurements(record: _Record) -> list[Measurement]:
    params = tuple((name, str(getattr(record, name))) for name in PARAMS)
    return [
        measured(Key(f"static.{record.kernel}", params, name, unit_of(name)), [value])
        for name, value in (record.model_extra or {}).items()
        if name not in OPTIONS and isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
