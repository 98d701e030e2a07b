"""criterion's measurements, Rust: cargo-criterion's messages, or a folder of criterion's own.

`cargo criterion --message-format=json > criterion.json` is one file with all benchmarks and their
samples. Criterion itself writes a folder per benchmark, target/criterion/NAME/new: sample.json has
the samples, estimates.json their median, benchmark.json beside the name. None of them tells commit,
date or machine.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from actprune_ci.model.reading import json_object, validated
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.readers.fields import SECONDS, measured
from actprune_common.errors import InputError

COMPLETE = "benchmark-complete"
"""The messages that hold measurements; others are about groups."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Complete(_Strict):
    id: str
    iteration_count: list[Any]
    measured_values: list[Any]
    unit: str


class _Sample(_Strict):
    iters: list[Any]
    times: list[Any]


class _Estimate(_Strict):
    point_estimate: float


class _Estimates(_Strict):
    median: _Estimate


class _Name(_Strict):
    full_id: str
    throughput: Any = None


def runs(document: Mapping[str, Any], path: Path) -> tuple[Run, ...]:
    """The one run of a stream of messages, or of one benchmark's file."""
    made = (
        _of_messages(document["messages"], path)
        if "messages" in document
        else [_of_folder(document, path)]
    )
    return (Run("criterion", "", False, "", "", {}, tuple(made)),)


def _of_messages(messages: Sequence[Any], path: Path) -> list[Measurement]:
    made = []
    for i, given in enumerate(messages):
        if not isinstance(given, dict):
            raise InputError(f"{path}: line {i + 1}: expected an object, got {given!r:.60}")
        if given.get("reason") == COMPLETE:
            one = validated(f"{path}: line {i + 1}", _Complete.model_validate, given)
            made.append(_measurement(one.id, one.iteration_count, one.measured_values, one.unit))
    return made


def _of_folder(document: Mapping[str, Any], path: Path) -> Measurement:
    beside = path.with_name("benchmark.json")
    name = validated(beside, _Name.model_validate, json_object(beside)).full_id
    if "times" in document:
        sample = validated(path, _Sample.model_validate, document)
        return _measurement(name, sample.iters, sample.times, "ns")
    median = validated(path, _Estimates.model_validate, document).median
    return _measurement(name, [1], [median.point_estimate], "ns", "median of criterion's samples")


def _measurement(
    name: str, counts: Sequence[Any], values: Sequence[Any], unit: str, detail: str = ""
) -> Measurement:
    """A sample is what `count` iterations took together, divided by the count."""
    timed = unit in SECONDS
    key = Key(name, (), "time" if timed else "value", "s" if timed else unit)
    if len(counts) != len(values):
        told = f"expected a count per value, got {len(counts)} and {len(values)}"
        return Measurement(key, (), "failed", told)
    iterations, whole = measured(key, counts), measured(key, values, detail)
    for one in (iterations, whole):
        if one.status != "ok":
            return one
    if min(iterations.samples) < 1:
        return Measurement(key, (), "failed", "expected one iteration or more in each sample")
    scale = SECONDS.get(unit, 1.0)
    pairs = zip(whole.samples, iterations.samples, strict=True)
    return measured(key, [value * scale / count for value, count in pairs], detail)
