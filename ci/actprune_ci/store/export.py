"""A store for other tools: asv's results folder, which `asv publish` draws, and CSV."""

import json
import math
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from hashlib import md5, sha256
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from actprune_ci.model.runs import Status
from actprune_ci.readers import asv as asv_files
from actprune_ci.store.query import over
from actprune_ci.store.store import text
from actprune_common.errors import InputError
from actprune_common.files import whole

COLUMNS = ("result", "params", "version", "started_at", "samples")
"""Of asv's result columns those that the store can fill; asv takes any subset."""
FACTS = ("arch", "cpu", "num_cpu", "os", "ram")
TYPES = {"peak_memory": "peakmemory", "memory": "memory"}
NO_PARAM = "-"
"""The value of a parameter that a benchmark has at other commits only."""

Point = tuple[str, ...]
"""Values of a benchmark's parameters, in its order."""


@dataclass
class AsvBenchmark:
    """One entry of benchmarks.json."""

    name: str
    kind: str
    unit: str
    axes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def params(self) -> list[list[str]]:
        """The grid, as asv writes it."""
        return [[asv_files.quoted(value) for value in axis] for axis in self.axes.values()]

    @property
    def entry(self) -> dict[str, Any]:
        """The benchmark's line in benchmarks.json."""
        return {
            "name": self.name,
            "type": self.kind,
            "unit": "seconds" if self.unit == "s" else self.unit,
            "param_names": list(self.axes),
            "params": self.params,
            "version": self.version,
            "code": "",
        }

    @property
    def version(self) -> str:
        """The same for the same name: what the store holds of it belongs together."""
        return sha256(self.name.encode()).hexdigest()


@dataclass(frozen=True)
class Exported:
    """What an export holds and what it leaves out."""

    commits: int
    benchmarks: int
    notes: tuple[str, ...]


def asv(store: str | Path, out: Path) -> Exported:
    """Write an asv results folder: benchmarks.json, and per machine machine.json and its results.

    A figure of asv's keeps its name; any other is `benchmark.metric`. Several measurements at one
    commit are one: their median, over all samples. Runs of a changed tree or without a commit have
    no place in a history; the notes count them. Raises InputError where `out` exists and is not an
    empty folder, and as actprune_ci.store.query.sql does.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: expected no such file, or an empty folder")
    exported, skipped = over(store, lambda connection: _folder(connection, out))
    notes = (*exported.notes, *(f"left out: {reason}" for reason in skipped.values()))
    return Exported(exported.commits, exported.benchmarks, notes)


def csv(store: str | Path, out: Path) -> tuple[str, ...]:
    """Write a CSV with a line per sample, and one for each failed or skipped figure.

    The lines stand by run, benchmark, metric, parameters, and samples as they were measured.
    Returns what was left out. Raises InputError as actprune_ci.store.query.sql does.
    """
    question = """
      COPY (SELECT * EXCLUDE (number) FROM (
        SELECT source, "commit", dirty, strftime(date, '%Y-%m-%dT%H:%M:%SZ') AS date, machine,
          benchmark, CAST(to_json(params) AS VARCHAR) AS params, metric, unit, status, detail,
          unnest(CASE WHEN len(samples) > 0 THEN samples ELSE [NULL] END) AS sample, run,
          unnest(range(greatest(len(samples), 1))) AS number
        FROM measurements)
      ORDER BY run, benchmark, metric, params, number) TO {path}
        (FORMAT csv, HEADER, USE_TMP_FILE false)
    """
    with whole(out) as beside:
        _, skipped = over(store, lambda db: db.execute(question.format(path=text(str(beside)))))
    return tuple(skipped.values())


def _folder(connection: Any, out: Path) -> Exported:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
        made = Path(name) / "asv"
        made.mkdir()
        exported = _fill(connection, made)
        made.replace(out)
    return exported


def _fill(connection: Any, out: Path) -> Exported:
    groups, notes = _groups(connection)
    if not groups:
        raise InputError(f"export: no run of a clean commit in this store ({'; '.join(notes)})")
    benchmarks = _benchmarks(connection)
    dates = _commit_dates(run for runs in groups.values() for run in runs)
    facts: dict[str, dict[str, str]] = {}
    for (machine, _, _), runs in groups.items():
        known = facts.setdefault(machine, dict.fromkeys(FACTS, ""))
        for run in runs:
            known.update({name: run["environment"].get(name, known[name]) for name in FACTS})
    for (machine, commit, name), runs in groups.items():
        file = _result_file(connection, runs, benchmarks)
        file |= {"commit_hash": commit, "env_name": name, "date": dates[commit]}
        file["params"] = {"machine": machine, **facts[machine], "python": file["python"]}
        _dump(out / _folder_name(machine) / _file_name(commit, name), file)
    for machine, known in facts.items():
        about = {"machine": machine, **known, "version": 1}
        _dump(out / _folder_name(machine) / "machine.json", about)
    entries = {benchmark.name: benchmark.entry for benchmark in benchmarks.values()}
    _dump(out / "benchmarks.json", {**entries, "version": 2})
    return Exported(len({commit for _, commit, _ in groups}), len(entries), notes)


def _groups(
    connection: Any,
) -> tuple[dict[tuple[str, str, str], list[dict[str, Any]]], tuple[str, ...]]:
    """The runs by (machine, commit, environment's name), oldest first; what is left out."""
    found = connection.execute("""
      SELECT DISTINCT ON (run) run, source, "commit", dirty, date, machine, environment
      FROM measurements ORDER BY run
    """)
    columns = [column[0] for column in found.description]
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    dirty = unknown = 0
    for row in found.fetchall():
        run = dict(zip(columns, row, strict=True))
        dirty += run["dirty"]
        unknown += not run["commit"]
        if run["commit"] and not run["dirty"]:
            python = run["environment"].get("python", "unknown")
            name = run["environment"].get("env_name") or f"{run['source']}-py{python}"
            groups.setdefault((run["machine"], run["commit"], name), []).append(run)
    counts = ((dirty, "of a changed tree"), (unknown, "without a commit"))
    return groups, tuple(f"{count} runs {what} left out" for count, what in counts if count)


def _benchmarks(connection: Any) -> dict[tuple[str, str], AsvBenchmark]:
    """By (benchmark, metric), with every value of every parameter, in order of appearance."""
    found = connection.execute("""
      SELECT benchmark, metric, last(unit ORDER BY run), params, min(run) AS first
      FROM measurements WHERE "commit" <> '' AND NOT dirty
      GROUP BY benchmark, metric, params ORDER BY benchmark, metric, first, params
    """).fetchall()
    made: dict[tuple[str, str], AsvBenchmark] = {}
    for name, metric, unit, params, _ in found:
        own = name if asv_files.key(name, ()).metric == metric else f"{name}.{metric}"
        kind = "time" if unit == "s" else TYPES.get(metric, "track")
        benchmark = made.setdefault((name, metric), AsvBenchmark(own, kind, unit))
        benchmark.axes.update({param: [] for param in params if param not in benchmark.axes})
    for name, metric, _, params, _ in found:
        for param, axis in made[name, metric].axes.items():
            if (value := params.get(param, NO_PARAM)) not in axis:
                axis.append(value)
    return made


def _result_file(
    connection: Any,
    runs: Sequence[Mapping[str, Any]],
    benchmarks: Mapping[tuple[str, str], AsvBenchmark],
) -> dict[str, Any]:
    """A result file of asv's, less its commit, name, date and params."""
    listed = ", ".join(text(run["run"]) for run in runs)
    rows = connection.execute(f"""
      SELECT benchmark, metric, params, status, samples FROM measurements
      WHERE run IN ({listed}) ORDER BY run, benchmark, metric, params
    """).fetchall()
    cells: dict[tuple[str, str], dict[Point, tuple[Status, list[float]]]] = {}
    for name, metric, params, status, samples in rows:
        axes = benchmarks[name, metric].axes
        point = tuple(params.get(axis, NO_PARAM) for axis in axes)
        before = cells.setdefault((name, metric), {}).get(point, (status, []))[1]
        cells[name, metric][point] = ("ok" if samples or before else status, [*before, *samples])
    started = _milliseconds(runs[-1]["date"])
    results = {
        benchmarks[key].name: _row(benchmarks[key], points, started)
        for key, points in cells.items()
    }
    return {
        "python": runs[-1]["environment"].get("python", ""),
        "requirements": {},
        "env_vars": {},
        "result_columns": list(COLUMNS),
        "results": results,
        "durations": {},
        "version": asv_files.VERSION,
    }


def _row(
    benchmark: AsvBenchmark, points: Mapping[Point, tuple[Status, list[float]]], started: int
) -> list[Any]:
    grid = [points.get(point, ("failed", [])) for point in product(*benchmark.axes.values())]
    values = [_value(status, samples) for status, samples in grid]
    samples = [found if len(found) > 1 else None for _, found in grid]
    return [values, benchmark.params, benchmark.version, started, samples if any(samples) else None]


def _value(status: Status, samples: Sequence[float]) -> float | None:
    if samples:
        return median(samples)
    return math.nan if status == "skipped" else None  # asv's way of telling them apart


def _commit_dates(runs: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Per commit when it was made, where a source knew; else when it was first measured."""
    made: dict[str, int] = {}
    measured: dict[str, int] = {}
    for run in runs:
        told = run["environment"].get("commit_date", "")
        if told:
            date = datetime.fromisoformat(told.replace("Z", "+00:00"))
            made[run["commit"]] = int(date.timestamp() * 1000)
        ran = _milliseconds(run["date"])
        measured[run["commit"]] = min(ran, measured.get(run["commit"], ran))
    return {**measured, **made}


def _milliseconds(utc: datetime) -> int:
    return int(utc.replace(tzinfo=timezone.utc).timestamp() * 1000)


def _folder_name(machine: str) -> str:
    return re.sub(r"[^\w.+-]", "_", machine)


def _file_name(commit: str, environment: str) -> str:
    if len(environment) >= 128:  # asv's own rule
        environment = "env-" + md5(environment.encode()).hexdigest()
    return f"{commit[:8]}-{_folder_name(environment)}.json"


def _dump(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document), "utf-8")
