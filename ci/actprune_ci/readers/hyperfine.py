"""hyperfine's JSON (--export-json), of versions 1 and 2: wall clock, user and system time, memory.

The file does not tell commit or machine, and the date from version 2 on alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from actprune_ci.model.metrics import Metric
from actprune_ci.model.reading import Several, validated
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.readers.fields import flat, measured

NAMES = {
    "time_wall_clock": "time",
    "time_user": "user_time",
    "time_system": "system_time",
    "time_cpu": "cpu_time",
    "memory_peak_resident": "peak_memory",
}
"""The harness's metrics by hyperfine's names (version 2)."""
UNITS = {"second": "s", "byte": "bytes"}
METRICS = {name: Metric("lower", "s") for name in ("user_time", "system_time", "cpu_time")}


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Result(_Strict):
    command: str
    name: str | None = None
    parameters: dict[str, Any] = {}
    times: list[Any] | None = None
    median: Any = None
    user: Any = None
    system: Any = None
    memory_usage_byte: list[Any] | None = None
    exit_codes: Several[int | None] = []
    measurements: list[dict[str, Any]] | None = None
    """Version 2's, a dict per execution."""


class _Metadata(_Strict):
    start_time: str = ""
    hyperfine_version: str = ""
    platform: dict[str, Any] = {}


class _File(_Strict):
    results: Several[_Result]
    metadata: _Metadata = _Metadata()


def runs(document: Mapping[str, Any], path: Path) -> tuple[Run, ...]:
    """The one run of the file."""
    file = validated(path, _File.model_validate, document)
    about = file.metadata
    environment = flat({**about.platform, "hyperfine": about.hyperfine_version})
    made = tuple(m for result in file.results for m in _measurements(result))
    return (Run("hyperfine", "", False, about.start_time, "", environment, made, METRICS),)


def _measurements(result: _Result) -> list[Measurement]:
    params = tuple((name, _plain(value)) for name, value in result.parameters.items())
    name = result.name or result.command
    if result.measurements is not None:
        return _of_version_2(name, params, result.measurements)
    note = _exits(result.exit_codes)
    figures: dict[str, Sequence[Any]] = {
        "time": result.times or [result.median],
        "user_time": [result.user],
        "system_time": [result.system],
    }
    made = [measured(Key(name, params, m), values, note) for m, values in figures.items()]
    if result.memory_usage_byte:
        key = Key(name, params, "peak_memory", "bytes")
        made.append(measured(key, result.memory_usage_byte, note))
    return made


def _of_version_2(
    name: str, params: tuple[tuple[str, str], ...], executions: Sequence[Mapping[str, Any]]
) -> list[Measurement]:
    note = _exits([one.get("exit_code") for one in executions])
    units: dict[str, str] = {}
    values: dict[str, list[Any]] = {}
    for execution in executions:
        for field, given in execution.items():
            if isinstance(given, dict) and "value" in given:
                units.setdefault(field, str(given.get("unit", "1")))
                values.setdefault(field, []).append(given["value"])
    made = []
    for field, samples in values.items():
        key = Key(name, params, NAMES.get(field, field), UNITS.get(units[field], units[field]))
        made.append(measured(key, samples, note))
    return made or [Measurement(Key(name, params), (), "failed", "no measurement")]


def _exits(codes: Sequence[Any]) -> str:
    """What is to say of commands that failed, which hyperfine measures under --ignore-failure."""
    failed = sum(code != 0 for code in codes)
    return f"{failed} of {len(codes)} executions failed" if failed else ""


def _plain(value: Any) -> str:
    return str(value.get("value", value)) if isinstance(value, dict) else str(value)
