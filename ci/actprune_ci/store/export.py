"""A store for other tools: asv's results folder, which `asv publish` draws, and CSV."""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import md5, sha256
from itertools import chain, groupby, product
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

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

_CLEAN = """
CREATE OR REPLACE TEMP VIEW clean AS
  SELECT * FROM measurements WHERE "commit" <> '' AND NOT dirty
"""
_OTHERS = """
SELECT count(DISTINCT run) FILTER (dirty), count(DISTINCT run) FILTER ("commit" = '')
FROM measurements
"""
_GROUPS = """
SELECT machine, "commit", env_name, list(DISTINCT run), epoch_ms(max(date)),
  coalesce(last(environment['python'] ORDER BY date, run), '')
FROM clean GROUP BY ALL ORDER BY min(date), machine, "commit", env_name
"""
"""The runs of each result file; when the last one ran, and with which Python."""
_DATES = """
SELECT "commit", coalesce(
  epoch_ms(max(nullif(environment['commit_date'], '')::TIMESTAMPTZ)), epoch_ms(min(date)))
FROM clean GROUP BY "commit"
"""
"""Per commit when it was made, where a source knew; else when it was first measured."""

Point = tuple[str, ...]
"""Values of a benchmark's parameters, in its order, as asv writes them."""
Points = dict[Point, tuple[Status, list[float]]]
Entry = dict[str, Any]
"""A benchmark in benchmarks.json."""


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
    left_out = (f"left out: {reason}" for reason in skipped.values())
    return replace(exported, notes=(*exported.notes, *left_out))


def csv(store: str | Path, out: Path) -> tuple[str, ...]:
    """Write a CSV with a line per sample, and one for each failed or skipped figure.

    The lines stand by run, benchmark, metric, parameters, and samples as they were measured.
    Returns what was left out. Raises InputError as actprune_ci.store.query.sql does.
    """
    question = """
      COPY (SELECT * EXCLUDE (number) FROM (
        SELECT source, "commit", dirty, strftime(date, '%Y-%m-%dT%H:%M:%SZ') AS date, machine,
          benchmark, CAST(to_json(params) AS VARCHAR) AS params, metric, unit, version,
          status, detail,
          unnest(CASE WHEN len(samples) > 0 THEN samples ELSE [NULL] END) AS sample, run,
          unnest(range(greatest(len(samples), 1))) AS number
        FROM measurements)
      ORDER BY date, run, benchmark, metric, params, version, number) TO {path}
        (FORMAT csv, HEADER, USE_TMP_FILE false)
    """
    with whole(out) as beside:
        _, skipped = over(store, lambda db: db.execute(question.format(path=text(str(beside)))))
    return tuple(skipped.values())


def _folder(connection: Any, out: Path) -> Exported:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
        made = Path(name) / "asv"
        exported = _fill(connection, made)
        made.replace(out)
    return exported


def _fill(connection: Any, out: Path) -> Exported:
    connection.execute(_CLEAN)
    dirty, unknown = connection.execute(_OTHERS).fetchone()
    counts = ((dirty, "of a changed tree"), (unknown, "without a commit"))
    notes = tuple(f"{count} runs {what} left out" for count, what in counts if count)
    groups = connection.execute(_GROUPS).fetchall()
    if not groups:
        raise InputError(f"export: no run of a clean commit in this store ({'; '.join(notes)})")
    benchmarks = _benchmarks(connection)
    last_known = ", ".join(
        f"coalesce(last(environment['{name}'] ORDER BY date, run), '')" for name in FACTS
    )
    known = connection.execute(
        f"SELECT machine, {last_known} FROM clean GROUP BY machine"
    ).fetchall()
    facts = {machine: dict(zip(FACTS, values, strict=True)) for machine, *values in known}
    dates = dict(connection.execute(_DATES).fetchall())
    for machine, commit, name, runs, started, python in groups:
        file = {
            "commit_hash": commit,
            "env_name": name,
            "date": dates[commit],
            "params": {"machine": machine, **facts[machine], "python": python},
            "python": python,
            "requirements": {},
            "env_vars": {},
            "result_columns": list(COLUMNS),
            "results": _results(connection, runs, started, benchmarks),
            "durations": {},
            "version": asv_files.VERSION,
        }
        path = out / _safe(machine) / _file_name(commit, name)
        if path.exists():  # another commit that begins like this one
            path = path.with_name(_file_name(commit, name, len(commit)))
        _dump(path, file)
    for machine, values in facts.items():
        about = {"machine": machine, **values, "version": 1}
        _dump(out / _safe(machine) / "machine.json", about)
    entries = {entry["name"]: entry for entry in benchmarks.values()}
    _dump(out / "benchmarks.json", {**entries, "version": 2})
    return Exported(len(dates), len(entries), notes)


def _benchmarks(connection: Any) -> dict[tuple[str, str], Entry]:
    """By (benchmark, metric), with every value of every parameter, in order of appearance."""
    found = connection.execute("""
      SELECT benchmark, metric, last((unit, version) ORDER BY date, run), params,
        min((date, run)) AS first, max((date, run)) AS newest
      FROM clean GROUP BY benchmark, metric, params ORDER BY benchmark, metric, first, params
    """).fetchall()
    made: dict[tuple[str, str], Entry] = {}
    for (name, metric), rows in groupby(found, itemgetter(0, 1)):
        meanings, every, _, newest = zip(*(row[2:] for row in rows), strict=True)
        unit, version = meanings[newest.index(max(newest))]
        own = name if asv_files.key(name, ()).metric == metric else f"{name}.{metric}"
        names = list(dict.fromkeys(chain(*every)))
        axes = zip(*(_point(names, params) for params in every), strict=True)
        made[name, metric] = {
            "name": own,
            "type": "time" if unit == "s" else TYPES.get(metric, "track"),
            "unit": "seconds" if unit == "s" else unit,
            "param_names": names,
            "version": _version(own, version),
            "code": "",
            "params": [list(dict.fromkeys(axis)) for axis in axes],
        }
    return made


def _version(own: str, version: str) -> str:
    """A version as asv needs one; where a benchmark has none, its name: all belong together."""
    return version or sha256(own.encode()).hexdigest()


def _point(names: Sequence[str], params: Mapping[str, str]) -> Point:
    return tuple(asv_files.quoted(params.get(name, NO_PARAM)) for name in names)


def _results(
    connection: Any, runs: Sequence[str], started: int, benchmarks: Mapping[tuple[str, str], Entry]
) -> dict[str, list[Any]]:
    """The rows of a result file of asv's, by the names of the benchmarks."""
    question = """
      SELECT benchmark, metric, params, version, status, samples FROM measurements
      WHERE list_contains($runs, run) ORDER BY date, run, benchmark, metric, params, version
    """
    cells: dict[tuple[str, str], dict[str, Points]] = {}
    rows = connection.execute(question, {"runs": runs}).fetchall()
    for name, metric, params, version, status, samples in rows:
        point = _point(benchmarks[name, metric]["param_names"], params)
        of_version = cells.setdefault((name, metric), {}).setdefault(version, {})
        before = of_version.get(point, (status, []))[1]
        of_version[point] = ("ok" if samples or before else status, [*before, *samples])
    made = {}
    for key, versions in cells.items():
        entry, last = benchmarks[key], list(versions)[-1]
        shown = {_version(entry["name"], version): points for version, points in versions.items()}
        version = entry["version"] if entry["version"] in shown else _version(entry["name"], last)
        made[entry["name"]] = _row(entry, version, shown[version], started)
    return made


def _row(entry: Entry, version: str, points: Points, started: int) -> list[Any]:
    grid = [points.get(point, ("failed", [])) for point in product(*entry["params"])]
    values = [_value(status, samples) for status, samples in grid]
    samples = [found if len(found) > 1 else None for _, found in grid]
    return [values, entry["params"], version, started, samples if any(samples) else None]


def _value(status: Status, samples: Sequence[float]) -> float | None:
    if samples:
        return median(samples)
    return math.nan if status == "skipped" else None  # asv's way of telling them apart


def _safe(name: str) -> str:
    """A name as that of a file: no two names have the same, and none leads elsewhere."""
    safe = quote(name, safe="+")
    if set(name) <= {"."}:
        safe = safe.replace(".", "%2E") or "%"
    digest = sha256(name.encode()).hexdigest()
    return safe if len(safe) <= 128 else f"{safe[:64]}%-{digest}"  # no %- elsewhere


def _file_name(commit: str, environment: str, digits: int = 8) -> str:
    if len(environment) >= 128:  # asv's own rule
        environment = "env-" + md5(environment.encode()).hexdigest()
    return f"{commit[:digits]}-{_safe(environment)}.json"


def _dump(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), "utf-8")
