"""asv's result files, format versions 1 and 2: RESULTS/MACHINE/HASH-environment.json.

Units and names of parameters come from benchmarks.json, one folder up, and facts of the machine
from machine.json beside, where they are there. asv writes null for what failed, NaN for what was
skipped, and a row only as long as it has values. It records samples only with --record-samples;
without them the median is the one sample.
"""

import warnings
from ast import literal_eval
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import product
from math import isnan
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from actprune_ci.model.reading import Several, json_object, validated
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.readers.fields import Milliseconds, commit_of, flat, from_milliseconds, measured
from actprune_common.errors import InputError, expected

VERSION = 2
"""The format that asv writes today."""
KINDS = {
    "time": ("time", "s"),
    "timeraw": ("time", "s"),
    "mem": ("memory", "bytes"),
    "peakmem": ("peak_memory", "bytes"),
}
COLUMNS = ("result", "samples", "stats_q_25", "stats_q_75", "stats_repeat")
"""A row's, with a value for each point of the grid."""
ENDLESS = 2**40
MOST_LOST = 100_000
"""Points of a file's grids that have no values; a grid with values has as many points as these."""


class _Row(BaseModel):
    """One benchmark of version 2."""

    model_config = ConfigDict(strict=True)
    params: Several[list[Any]] | None = None
    version: str | None = None
    started_at: Milliseconds | None = None
    result: list[Any] | None = None
    samples: Several[list[Any] | None] | None = None
    stats_q_25: list[Any] | None = None
    stats_q_75: list[Any] | None = None
    stats_repeat: list[Any] | None = None

    @property
    def points(self) -> int:
        """Of the grid, which is not made for it: no more are counted than any file may have."""
        count = 1
        for axis in self.params or []:
            count = min(count * len(axis), ENDLESS)
        return count


class _AsvFile(BaseModel):
    model_config = ConfigDict(strict=True)
    commit_hash: str
    date: Milliseconds
    params: dict[str, Any]
    python: str = ""
    requirements: dict[str, Any] = {}
    env_vars: dict[str, Any] = {}
    env_name: str = ""
    results: dict[str, _Row]


def runs(document: Mapping[str, Any], path: Path) -> tuple[Run, ...]:
    """The one run of a result file, dated when its last benchmark started."""
    version = document.get("version")
    if version not in (1, VERSION) or isinstance(version, bool):
        raise expected(f"{path}: version", "1 or 2", repr(version)[:60])
    rows = _rows_of_1(document) if version == 1 else _rows_of_2(document, path)
    file = validated(path, _AsvFile.model_validate, {**document, "results": rows})
    machine = file.params.get("machine")
    if not isinstance(machine, str) or not machine:
        raise InputError(f"{path}: params.machine: expected a name, got {machine!r:.60}")
    if sum(row.points for row in file.results.values() if row.result is None) > MOST_LOST:
        raise InputError(
            f"{path}: results: expected values, or at most {MOST_LOST} points of grids"
        )
    known = _beside(path.parent.parent / "benchmarks.json")
    environment = {
        **flat(_beside(path.parent / "machine.json")),
        **flat(file.params),
        **flat(file.requirements),
        **flat(file.env_vars, "env-"),
        "env_name": file.env_name or _env_name(file),
        "commit_date": from_milliseconds(file.date),
    }
    for name in ("machine", "version"):
        environment.pop(name, None)
    measurements = [
        measurement
        for name, row in file.results.items()
        for measurement in _measurements(name, row, known.get(name), path)
    ]
    started = [row.started_at for row in file.results.values() if row.started_at]
    date = from_milliseconds(max(started, default=file.date))
    commit = commit_of(file.commit_hash)
    return (Run("asv", commit, False, date, machine, environment, tuple(measurements)),)


def key(
    name: str,
    params: Sequence[str],
    param_names: Sequence[str] = (),
    unit: str | None = None,
    version: str = "",
) -> Key:
    """The Key of one of asv's figures, `params` as asv writes them (repr of the values).

    The metric is `time`, `memory`, `peak_memory`, or what follows `track_` in the name.
    """
    kind, _, rest = name.rpartition(".")[2].partition("_")
    metric, natural = KINDS.get(kind, (rest if kind == "track" and rest else "value", "unit"))
    if len(param_names) != len(params):
        param_names = [f"param{i + 1}" for i in range(len(params))]
    pairs = tuple(zip(param_names, map(plain, params), strict=True))
    unit = {"seconds": "s"}.get(unit or natural, unit or natural)
    return Key(name, pairs, metric, unit, version)


def plain(text: str) -> str:
    """A parameter without the quotes of its repr; they stay where they tell '1' from 1."""
    value = _literal(text)
    return value if isinstance(value, str) and _literal(value) is None else text


def quoted(text: str) -> str:
    """The inverse of `plain`: the parameter as asv writes it."""
    return repr(text) if _literal(text) is None and not text.startswith("<") else text


@lru_cache(maxsize=4096)
def _literal(text: str) -> object | None:
    try:
        with warnings.catch_warnings():  # of a backslash that escapes nothing
            warnings.simplefilter("ignore")
            value: object = literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return "None" if value is None else value


def _rows_of_1(document: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of version 1, whose results are single values or objects of lists, as of 2."""
    given = document["results"]
    return {name: _row_of_1(name, value, document) for name, value in _items(given)}


def _row_of_1(name: str, value: Any, document: Mapping[str, Any]) -> dict[str, Any]:
    row = dict(value) if isinstance(value, dict) else {"result": value}
    for column in ("result", "stats"):
        if not isinstance(row.get(column), list):
            # null is one value that failed; where there is a grid, all of it
            whole = row.get("params") if row.get(column) is None else []
            row[column] = None if whole else [row.get(column)]
    for column in ("q_25", "q_75", "repeat"):
        stats = row["stats"] or []
        values = [each.get(column) if isinstance(each, dict) else None for each in stats]
        row[f"stats_{column}"] = values if any(v is not None for v in values) else None
    for column, source in (("version", "benchmark_version"), ("started_at", "started_at")):
        row[column] = dict(_items(document.get(source))).get(name)
    return row


def _items(given: Any) -> list[tuple[str, Any]]:
    return list(given.items()) if isinstance(given, dict) else []


def _rows_of_2(document: Mapping[str, Any], path: Path) -> Any:
    """The rows of version 2, each with the names of its columns."""
    columns, results = document.get("result_columns"), document["results"]
    if not isinstance(columns, list) or len(set(map(str, columns))) < len(columns):
        raise InputError(f"{path}: result_columns: expected names, each once, got {columns!r:.60}")
    if not isinstance(results, dict):
        return results  # which validation refuses
    return {
        name: dict(zip(map(str, columns), row, strict=False)) if isinstance(row, list) else row
        for name, row in results.items()
    }


def _env_name(file: _AsvFile) -> str:
    """As asv names an environment of a file that does not."""
    needs = [f"{name}{value or ''}" for name, value in sorted(file.requirements.items())]
    return "-".join([f"py{file.python}", *needs]) if file.python else ""


def _measurements(name: str, row: _Row, known: Any, path: Path) -> list[Measurement]:
    columns = {}
    for column in COLUMNS:
        values = getattr(row, column)
        if values is not None and len(values) != row.points:
            told = f"expected {row.points} values, got {len(values)}"
            raise InputError(f"{path}: results.{name}: {column}: {told}")
        columns[column] = values
    names, unit = _explained(known)
    return [
        _measurement(
            key(name, list(map(str, point)), names, unit, row.version or ""),
            {column: values and values[i] for column, values in columns.items()},
        )
        for i, point in enumerate(product(*(row.params or [])))
    ]


def _explained(known: Any) -> tuple[Sequence[str], str | None]:
    """The names of the parameters and the unit in benchmarks.json, as far as they are usable."""
    known = known if isinstance(known, dict) else {}
    names, unit = known.get("param_names"), known.get("unit")
    usable = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return (
        names if usable and len(set(names)) == len(names) else (),
        unit if isinstance(unit, str) else None,
    )


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
    quartiles = f"quartiles {cell['stats_q_25']!s:.30} and {cell['stats_q_75']!s:.30}"
    return measured(key, [value], f"median of {cell['stats_repeat']!s:.30} samples, {quartiles}")


def _beside(path: Path) -> dict[str, Any]:
    """What a file that only explains holds; nothing where it is missing or spoilt."""
    try:
        return json_object(path)
    except InputError:
        return {}
