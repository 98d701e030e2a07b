"""asv's result files, format version 2: RESULTS/MACHINE/HASH-environment.json.

Units and names of parameters come from benchmarks.json, one folder up, and facts of the machine
from machine.json beside, where they are there. asv writes null for what failed, NaN for what was
skipped, and a row only as long as it has values. It records samples only with --record-samples;
without them the median is the one sample.
"""

from ast import literal_eval
from collections.abc import Mapping, Sequence
from itertools import product
from math import isnan
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from actprune_ci.model.reading import json_object, validated
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.readers.fields import flat, from_milliseconds, full_hash, measured
from actprune_common.errors import InputError, expected

VERSION = 2
KINDS = {
    "time": ("time", "s"),
    "timeraw": ("time", "s"),
    "mem": ("memory", "bytes"),
    "peakmem": ("peak_memory", "bytes"),
}


class _AsvFile(BaseModel):
    commit_hash: str
    date: float
    params: dict[str, Any]
    requirements: dict[str, Any] = {}
    env_vars: dict[str, Any] = {}
    env_name: str = ""
    result_columns: list[str]
    results: dict[str, list[Any]]


def runs(document: Mapping[str, Any], path: Path) -> tuple[Run, ...]:
    """The one run of a result file, dated when its last benchmark started."""
    if (came := document.get("version")) != VERSION:
        raise expected(f"{path}: version", str(VERSION), f"{came!r} (asv update rewrites it)")
    file = validated(path, _AsvFile.model_validate, document)
    machine = file.params.get("machine")
    if not isinstance(machine, str) or not machine:
        raise InputError(f"{path}: params.machine: expected a name, got {machine!r}")
    known = _beside(path.parent.parent / "benchmarks.json")
    rows = {
        name: dict(zip(file.result_columns, row, strict=False))
        for name, row in file.results.items()
    }
    started = [row["started_at"] for row in rows.values() if row.get("started_at")]
    environment = {
        **flat(_beside(path.parent / "machine.json")),
        **flat(file.params),
        **flat(file.requirements),
        **flat(file.env_vars, "env-"),
        "env_name": file.env_name,
        "commit_date": from_milliseconds(file.date),
    }
    for name in ("machine", "version"):
        environment.pop(name, None)
    measurements = [
        measurement
        for name, row in rows.items()
        for measurement in _measurements(name, row, known.get(name, {}), path)
    ]
    date = from_milliseconds(max(started, default=file.date))
    commit = full_hash(file.commit_hash)
    return (Run("asv", commit, False, date, machine, environment, tuple(measurements)),)


def key(
    name: str, params: Sequence[str], param_names: Sequence[str] = (), unit: str | None = None
) -> Key:
    """The Key of one of asv's figures, `params` as asv writes them (repr of the values).

    The metric is `time`, `memory`, `peak_memory`, or what follows `track_` in the name.
    """
    kind, _, rest = name.rpartition(".")[2].partition("_")
    metric, natural = KINDS.get(kind, (rest if kind == "track" and rest else "value", "unit"))
    if len(param_names) != len(params):
        param_names = [f"param{i + 1}" for i in range(len(params))]
    pairs = tuple(zip(param_names, map(plain, params), strict=True))
    return Key(name, pairs, metric, {"seconds": "s"}.get(unit or natural, unit or natural))


def plain(text: str) -> str:
    """A parameter without the quotes of its repr; they stay where they tell '1' from 1."""
    value = _literal(text)
    return value if isinstance(value, str) and _literal(value) is None else text


def quoted(text: str) -> str:
    """The inverse of `plain`: the parameter as asv writes it."""
    return repr(text) if _literal(text) is None and not text.startswith("<") else text


def _literal(text: str) -> object | None:
    try:
        value: object = literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return "None" if value is None else value


def _measurements(
    name: str, row: Mapping[str, Any], known: Mapping[str, Any], path: Path
) -> list[Measurement]:
    axes = row.get("params") or []
    if not all(isinstance(axis, list) for axis in axes):
        raise InputError(f"{path}: results.{name}: params: expected lists, got {axes!r:.60}")
    grid = list(product(*axes))
    columns = {}
    for column in ("result", "samples", "stats_q_25", "stats_q_75", "stats_repeat"):
        values = row.get(column)
        columns[column] = [None] * len(grid) if values is None else values
        if not isinstance(columns[column], list) or len(columns[column]) != len(grid):
            raise InputError(f"{path}: results.{name}: {column}: expected {len(grid)} values")
    return [
        _measurement(
            key(name, list(map(str, point)), known.get("param_names", ()), known.get("unit")),
            {column: values[i] for column, values in columns.items()},
        )
        for i, point in enumerate(grid)
    ]


def _measurement(key: Key, cell: Mapping[str, Any]) -> Measurement:
    value = cell["result"]
    if value is None:
        return Measurement(key, (), "failed", "failed, or ran out of time or memory, in asv")
    if isinstance(value, float) and isnan(value):
        return Measurement(key, (), "skipped", "skipped in asv: not for this machine, or NaN")
    if cell["samples"]:
        return measured(key, cell["samples"])
    if not cell["stats_repeat"]:
        return measured(key, [value])
    quartiles = f"quartiles {cell['stats_q_25']} and {cell['stats_q_75']}"
    return measured(key, [value], f"median of {cell['stats_repeat']} samples, {quartiles}")


def _beside(path: Path) -> dict[str, Any]:
    """What a file that only explains holds; nothing where it is missing or spoilt."""
    try:
        return json_object(path)
    except InputError:
        return {}
