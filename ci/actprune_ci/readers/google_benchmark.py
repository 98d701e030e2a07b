"""google-benchmark's JSON (--benchmark_out): repetitions are samples, counters are metrics.

Aggregates are left out where repetitions stand beside them; with
--benchmark_report_aggregates_only the median is the one sample.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from actprune_ci.model.metrics import Metric
from actprune_ci.model.reading import Several, validated
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.readers.fields import SECONDS, flat, measured, message

METRICS = {
    "cpu_time": Metric("lower", "s"),
    "items_per_second": Metric("higher", "1/s"),
    "bytes_per_second": Metric("higher", "bytes/s"),
}
"""What the tool's own figures mean, besides the time; counters are the benchmark's own."""
ABOUT = {
    *("family_index", "per_family_instance_index", "repetitions", "repetition_index"),
    *(
        "threads",
        "iterations",
        "real_time",
        "cpu_time",
        "real_coefficient",
        "cpu_coefficient",
        "rms",
    ),
}
"""Numbers of a benchmark that are no counters."""
AGGREGATES = ("_mean", "_median", "_stddev", "_cv", "_BigO", "_RMS", "_min", "_max")
"""Ends of names before there was run_type."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Benchmark(_Strict):
    model_config = ConfigDict(strict=True, extra="allow")
    name: str
    run_name: str = ""
    run_type: str = ""
    aggregate_name: str = ""
    time_unit: str = "ns"
    real_time: Any = None
    cpu_time: Any = None
    error_occurred: bool = False
    error_message: str = ""
    skipped: bool = False
    skip_message: str = ""

    @property
    def of(self) -> str:
        """The benchmark's name, which its repetitions and aggregates share."""
        if self.run_name:
            return self.run_name
        end = next((end for end in AGGREGATES if self.name.endswith(end)), "")
        return self.name.removesuffix(end)

    @property
    def aggregate(self) -> str:
        """Which aggregate it is; '' for a repetition."""
        old = not self.run_type and self.name != self.of
        return self.aggregate_name or (self.name[len(self.of) + 1 :] if old else "")


class _File(_Strict):
    context: dict[str, Any]
    benchmarks: Several[_Benchmark]


def runs(document: Mapping[str, Any], path: Path) -> tuple[Run, ...]:
    """The one run of the file, on the host that it names."""
    file = validated(path, _File.model_validate, document)
    environment = flat(file.context)
    date, machine = environment.pop("date", ""), environment.pop("host_name", "")
    environment.pop("load_avg", None)
    by_name: dict[str, list[_Benchmark]] = {}
    for benchmark in file.benchmarks:
        by_name.setdefault(benchmark.of, []).append(benchmark)
    measurements = [m for name, rows in by_name.items() for m in _measurements(name, rows)]
    about = "", False, date, machine, environment, tuple(measurements)
    return (Run("google-benchmark", *about, METRICS),)


def _measurements(name: str, rows: Sequence[_Benchmark]) -> list[Measurement]:
    failed = [row for row in rows if row.error_occurred]
    if failed:
        why = message(failed[0].error_message, "error_occurred")
        return [Measurement(Key(name), (), "failed", why)]
    if skipped := [row for row in rows if row.skipped]:
        return [Measurement(Key(name), (), "skipped", message(skipped[0].skip_message, "skipped"))]
    repeated = [row for row in rows if not row.aggregate]
    medians = [row for row in rows if row.aggregate == "median"]
    used, detail = (repeated, "") if repeated else (medians, "median of repetitions")
    if not used:
        return [Measurement(Key(name), (), "failed", "neither a repetition nor a median")]
    counters = dict.fromkeys(
        counter
        for row in used
        for counter, value in (row.model_extra or {}).items()
        if counter not in ABOUT and isinstance(value, (int, float)) and not isinstance(value, bool)
    )
    made = [
        _timed(Key(name, (), metric), used, field, detail)
        for metric, field in (("time", "real_time"), ("cpu_time", "cpu_time"))
    ]
    for counter in counters:
        unit = METRICS[counter].unit if counter in METRICS else "1"
        values = [(row.model_extra or {}).get(counter) for row in used]
        made.append(measured(Key(name, (), counter, unit), values, detail))
    return made


def _timed(key: Key, rows: Sequence[_Benchmark], field: str, detail: str) -> Measurement:
    made = measured(key, [getattr(row, field) for row in rows], detail)
    scales = [SECONDS.get(row.time_unit) for row in rows]
    if made.status != "ok":
        return made
    if None in scales:
        units = [row.time_unit for row in rows if row.time_unit not in SECONDS]
        return Measurement(key, (), "failed", f"expected a unit of time, got {units[0]!r:.60}")
    pairs = zip(made.samples, scales, strict=True)
    return measured(key, [value * (scale or 1.0) for value, scale in pairs], detail)
