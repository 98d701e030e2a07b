"""nvbench's JSON (--json): a state's summaries are its figures, each a mean of many launches.

The file does not tell commit, date or machine; a device is a parameter, by its name.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from actprune_ci.model.metrics import Metric
from actprune_ci.model.reading import Several, validated
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.readers.fields import measured, message

TIME = "nv/cold/time/gpu/mean"
"""The tag of the metric `time`; every other summary's metric is its tag."""
SKIPPED_TAGS = ("nv/json/", "nv/cold/walltime", "nv/cold/sample_size", "nv/batch/sample_size")
"""Begin tags that say how it was measured."""
HINTS = {
    "duration": Metric("lower", "s"),
    "item_rate": Metric("higher", "1/s"),
    "byte_rate": Metric("higher", "bytes/s"),
    "bytes": Metric("none", "bytes"),
    "percentage": Metric("none", "ratio"),
    "frequency": Metric("none", "Hz"),
    "sample_size": Metric("none", "1"),
}
"""What the hints of summaries mean; without one a figure is descriptive."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Value(_Strict):
    name: str
    value: Any = None


class _Summary(_Strict):
    tag: str
    hint: str | None = None
    data: Several[_Value] = []


class _Axis(_Strict):
    name: str
    value: str | int | float | None = None


class _State(_Strict):
    name: str = ""
    device: int | None = None
    axis_values: Several[_Axis] | None = None
    summaries: Several[_Summary] | None = None
    is_skipped: bool = False
    skip_reason: str | None = None


class _Benchmark(_Strict):
    name: str
    states: Several[_State] | None = None


class _Device(_Strict):
    id: int
    name: str


class _File(_Strict):
    meta: dict[str, Any]
    devices: Several[_Device] | None
    benchmarks: Several[_Benchmark]


def runs(document: Mapping[str, Any], path: Path) -> tuple[Run, ...]:
    """The one run of the file."""
    file = validated(path, _File.model_validate, document)
    devices = _names(file.devices or [])
    states = [
        (benchmark.name, state) for benchmark in file.benchmarks for state in benchmark.states or []
    ]
    measurements = [m for name, state in states for m in _measurements(name, state, devices)]
    hints = {
        _metric(summary): HINTS[summary.hint]
        for _, state in states
        for summary in state.summaries or []
        if summary.hint in HINTS
    }
    environment = {f"device_{device.id}": device.name for device in file.devices or []}
    return (Run("nvbench", "", False, "", "", environment, tuple(measurements), hints),)


def _names(devices: Sequence[_Device]) -> dict[int | None, str]:
    """Names of devices, by id; equal ones with their ids."""
    count = Counter(device.name for device in devices)
    return {
        device.id: device.name if count[device.name] == 1 else f"{device.name} #{device.id}"
        for device in devices
    }


def _metric(summary: _Summary) -> str:
    return "time" if summary.tag == TIME else summary.tag


def _measurements(name: str, state: _State, devices: Mapping[int | None, str]) -> list[Measurement]:
    axes = tuple((axis.name, str(axis.value)) for axis in state.axis_values or [])
    device = devices.get(state.device, "" if state.device is None else str(state.device))
    params = (*axes, ("device", device)) if device else axes
    if state.is_skipped:
        why = message(state.skip_reason, "skipped in nvbench")
        return [Measurement(Key(name, params), (), "skipped", why)]
    made = []
    for summary in state.summaries or []:
        value = next((one.value for one in summary.data if one.name == "value"), None)
        if summary.tag.startswith(SKIPPED_TAGS) or value is None:
            continue
        unit = HINTS[summary.hint].unit if summary.hint in HINTS else "1"
        made.append(measured(Key(name, params, _metric(summary), unit), [_number(value)]))
    return made or [Measurement(Key(name, params), (), "failed", "no summary")]


def _number(value: Any) -> Any:
    """nvbench writes its numbers as texts."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
