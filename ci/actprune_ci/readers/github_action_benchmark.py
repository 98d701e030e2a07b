"""github-action-benchmark's data.js: `window.BENCHMARK_DATA = {"entries": {SUITE: [...]}}`.

Each entry is a run. A suite's name is a parameter, since two suites may have a name in common. The
file does not say where it was measured: its machine is the tool's name, unless one is given.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from actprune_ci.model.metrics import Metric
from actprune_ci.model.reading import Several, validated
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.readers.fields import (
    SECONDS,
    Milliseconds,
    commit_of,
    from_milliseconds,
    measured,
    message,
)

SOURCE: Literal["github-action-benchmark"] = "github-action-benchmark"
TIME = re.compile(r"(\w+)(?:/(?:iter|op))?")
RATE = re.compile(r"(?:ops?|iter|it)s?/s(?:ec)?")
DECLARED = {
    "customBiggerIsBetter": ("bigger_is_better", Metric("higher")),
    "customSmallerIsBetter": ("smaller_is_better", Metric("lower")),
}
"""The tools whose names say which way is better: metric and meaning of their figures."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Commit(_Strict):
    id: str
    timestamp: str = ""


class _Bench(_Strict):
    name: str
    value: Any
    unit: str
    range: str | float | None = None


class _Entry(_Strict):
    commit: _Commit
    date: Milliseconds
    tool: str
    benches: Several[_Bench]


class _DataFile(_Strict):
    entries: dict[str, Several[_Entry]]


def runs(document: Mapping[str, Any], path: Path) -> tuple[Run, ...]:
    """A run per entry, dated when it was measured."""
    file = validated(path, _DataFile.model_validate, document)
    return tuple(_run(suite, entry) for suite, entries in file.entries.items() for entry in entries)


def _run(suite: str, entry: _Entry) -> Run:
    environment = {"tool": entry.tool}
    if entry.commit.timestamp:
        environment["commit_date"] = entry.commit.timestamp
    measurements: dict[Key, Measurement] = {}
    count = Counter(_key(suite, bench, entry.tool) for bench in entry.benches)
    for bench in entry.benches:
        key = _key(suite, bench, entry.tool)
        measurements[key] = _measurement(key, bench)
        if count[key] > 1:
            told = f"expected once in an entry, stands {count[key]} times"
            measurements[key] = Measurement(key, (), "failed", told)
    commit, date = commit_of(entry.commit.id), from_milliseconds(entry.date)
    about = commit, False, date, SOURCE, environment
    metrics = dict([DECLARED[entry.tool]]) if entry.tool in DECLARED else {}
    return Run(SOURCE, *about, tuple(measurements.values()), metrics)


def _key(suite: str, bench: _Bench, tool: str) -> Key:
    metric, unit = "value", bench.unit
    if tool in DECLARED:
        metric = DECLARED[tool][0]
    elif _seconds(unit):
        metric, unit = "time", "s"
    elif RATE.fullmatch(unit):
        metric = "throughput"
    return Key(bench.name, (("suite", suite),), metric, unit)


def _seconds(unit: str) -> float | None:
    found = TIME.fullmatch(unit)
    return SECONDS.get(found[1]) if found else None


def _measurement(key: Key, bench: _Bench) -> Measurement:
    detail = message(str(bench.range), "") if bench.range is not None else ""
    made = measured(key, [bench.value], detail)
    if made.status != "ok" or key.metric != "time":
        return made
    return measured(key, [made.samples[0] * (_seconds(bench.unit) or 1.0)], detail)
