"""The store: an append-only folder, a Parquet file per run, never rewritten.

    STORE/runs/DATE-CONTENT-BYTES.parquet   a row per measurement, with its samples
    STORE/set-aside/NAME, NAME.reason.txt   what could not be recorded or was damaged, and why

A file's name is the date of its run, a digest of what the run holds, and one of the file's bytes.
By the first a run that is recorded twice is known; by the second every reader sees whether the file
is what was written.
"""

import json
import sys
import tempfile
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
from pydantic import TypeAdapter

from actprune_ci.model.dates import utc
from actprune_ci.model.metrics import Metric
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.model.serialise import check
from actprune_ci.store.integrity import file_name, parsed, why_changed
from actprune_common.errors import InputError
from actprune_common.files import contents, whole, write_whole

SCHEMA = 2
RUNS, SET_ASIDE = "runs", "set-aside"
COLUMNS = {
    "schema": "INTEGER",
    "source": "VARCHAR",
    "commit": "VARCHAR",
    "dirty": "BOOLEAN",
    "date": "TIMESTAMP",  # UTC
    "machine": "VARCHAR",
    "environment": "MAP(VARCHAR, VARCHAR)",
    "name": "VARCHAR",  # benchmark(params)
    "benchmark": "VARCHAR",
    "params": "MAP(VARCHAR, VARCHAR)",
    "metric": "VARCHAR",
    "unit": "VARCHAR",
    "status": "VARCHAR",
    "detail": "VARCHAR",
    "samples": "DOUBLE[]",
    "version": "VARCHAR",  # of the benchmark's code
    "meaning": "VARCHAR",  # JSON of the metric as the run declares it, or empty
}
"""The schema of a run's file: column and DuckDB type."""
SINCE_2 = ("version", "meaning")
"""The columns that files of schema 1 lack; they are read as empty."""
_METRIC = TypeAdapter(Metric)


def connect() -> Any:
    """An empty DuckDB in memory that fetches nothing from the network by itself."""
    return duckdb.connect(config={"autoinstall_known_extensions": "false"})


def canonical(run: Run) -> Run:
    """The same run as the store writes it: the date in UTC, facts and measurements in order.

    Of the metrics that it declares those that it measures are kept.
    """
    used = {m.key.metric for m in run.measurements}
    return replace(
        run,
        metrics={name: run.metrics[name] for name in sorted(used & set(run.metrics))},
        date=utc(run.date),
        environment=dict(sorted(run.environment.items())),
        measurements=tuple(sorted(run.measurements, key=lambda m: m.key)),
    )


def digest(run: Run) -> str:
    """16 hexadecimal digits of SHA-256 over all of a canonical run, its samples by their bits.

    What schema 1 did not know counts where there is any, so that a run of then has its digest of
    then and is not recorded again.
    """
    head = [run.source, run.commit, run.dirty, run.date, run.machine, dict(run.environment)]
    declared = [{name: _meaning(run, name) for name in sorted(run.metrics)}] if run.metrics else []
    state = sha256(json.dumps([*head, *declared]).encode())
    for m in run.measurements:
        row = [m.key.benchmark, m.key.params, m.key.metric, m.key.unit, m.status, m.detail]
        state.update(json.dumps([*row, m.key.version] if m.key.version else row).encode())
        samples = array("d", m.samples)
        if sys.byteorder == "big":
            samples.byteswap()
        state.update(samples.tobytes())
    return state.hexdigest()[:16]


def write(run: Run, store: Path) -> Path | None:
    """The new file of a run in the store; None where the store already has this very run.

    A file of the same run that is damaged is moved to set-aside/. Raises InputError for a run that
    is not sound, and where the file cannot be written whole: then nothing of it is left.
    """
    run = canonical(check(run))
    if not run.measurements:
        raise InputError("run: measurements: expected at least one, got none")
    if found(run, store) is not None:
        return None
    content = _parquet(run, store)
    path = store / RUNS / file_name(stem(run), content)
    try:
        with whole(path, overwrite=False) as beside:
            beside.write_bytes(content)
    except FileExistsError:  # another writer was faster
        return None
    return path


def found(run: Run, store: Path) -> Path | None:
    """Where the store has a canonical run; None where it has not, or only damaged.

    A damaged file of the run is moved to set-aside/, with the reason beside it.
    """
    for path in sorted((store / RUNS).glob(f"{stem(run)}*.parquet")):
        try:
            read(path)
        except InputError as problem:
            content = contents(path)
            # what has its bytes' digest and cannot be read may be of a newer schema
            if schema_of(str(path)) == 1 or why_changed(str(path), content):
                aside = store / SET_ASIDE / f"{sha256(content).hexdigest()[:16]}-{path.name}"
                _move(path, aside, str(problem))
        else:
            return path
    return None


def stem(run: Run) -> str:
    """How the names of a canonical run's files begin: DATE-CONTENT."""
    date = datetime.fromisoformat(run.date).strftime("%Y%m%dT%H%M%SZ")
    return f"{date}-{digest(run)}"


def read(path: Path) -> Run:
    """The run in a file of the store, bit for bit as it was recorded.

    Raises InputError, which begins with the path, where the file is not of this schema or its
    bytes or contents do not have the digests in its name.
    """
    if changed := why_changed(str(path), contents(path)):
        raise InputError(changed)
    return contained(connect(), str(path))


def contained(connection: Any, path: str) -> Run:
    """The run in a file or URL whose bytes fit its name; raises as `read` does."""
    try:
        question = f"SELECT {', '.join(COLUMNS)} FROM {scan([path])}"
        rows = connection.execute(question).fetchall()
    except (duckdb.Error, UnicodeError) as problem:
        raise InputError(f"{path}: no file of this store: {one_line(problem)}") from None
    schema = schema_of(path)
    if not rows or {row[0] for row in rows} != {schema}:
        raise InputError(
            f"{path}: schema: expected {schema}, got {rows[0][0] if rows else 'no row'}"
        )
    with suppress(
        AttributeError, TypeError, ValueError, OverflowError
    ):  # no text where one belongs
        run = _run([dict(zip(COLUMNS, row, strict=True)) for row in rows])
        if run is not None and parsed(path).run == stem(run):
            return run
    raise InputError(f"{path}: digest: the contents do not have it, so they were changed")


def schema_of(path: str) -> int:
    """The schema that the name of a run's file tells."""
    return SCHEMA if parsed(path).digest else 1


def scan(files: Sequence[str]) -> str:
    """The SQL that reads files of the store, the file beside each row as `filename`."""
    by_schema: dict[bool, list[str]] = {}
    for path in files:
        by_schema.setdefault(schema_of(path) == 1, []).append(text(path))
    empty = "".join(f", '' AS {column}" for column in SINCE_2)
    made = (
        f"SELECT *{empty if old else ''} FROM read_parquet([{', '.join(listed)}],"
        " filename=true, hive_partitioning=false)"
        for old, listed in by_schema.items()
    )
    return f"({' UNION ALL BY NAME '.join(made)})"


def text(value: str) -> str:
    """A text as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def one_line(problem: Exception) -> str:
    """The first line of an error's message."""
    return str(problem).strip().partition("\n")[0]


def _move(path: Path, aside: Path, reason: str) -> None:
    """Move a damaged file out of the runs; another process may do the same."""
    aside.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        path.replace(aside)
        write_whole(aside.with_name(f"{aside.name}.reason.txt"), f"{reason}\n")


def _parquet(run: Run, store: Path) -> bytes:
    """The bytes of the run's file."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.parquet"
            _write_parquet(run, path)
            return path.read_bytes()
    except (OSError, duckdb.Error, UnicodeError) as problem:  # a full disk, for one
        raise InputError(f"{store}: cannot be written: {one_line(problem)}") from None


def _write_parquet(run: Run, path: Path) -> None:
    keys = [m.key for m in run.measurements]
    values: Mapping[str, Any] = {
        "schema": SCHEMA,
        "source": run.source,
        "commit": run.commit,
        "dirty": run.dirty,
        "date": run.date.removesuffix("+00:00"),
        "machine": run.machine,
        "environment": as_map(run.environment),
        "name": [str(k) for k in keys],
        "benchmark": [k.benchmark for k in keys],
        "params": [as_map(dict(k.params)) for k in keys],
        "metric": [k.metric for k in keys],
        "unit": [k.unit for k in keys],
        "status": [m.status for m in run.measurements],
        "detail": [m.detail for m in run.measurements],
        "samples": [list(m.samples) for m in run.measurements],
        "version": [k.version for k in keys],
        "meaning": [_meaning(run, k.metric) for k in keys],
    }
    columns = [
        (f"unnest(${name}::{kind}[])" if isinstance(values[name], list) else f"${name}::{kind}")
        + f' AS "{name}"'
        for name, kind in COLUMNS.items()
    ]
    to = f"{text(str(path))} (FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false)"
    connect().execute(f"COPY (SELECT {', '.join(columns)}) TO {to}", values)


def as_map(facts: Mapping[str, str]) -> dict[str, list[str]]:
    """What DuckDB takes for a MAP."""
    return {"key": list(facts), "value": list(facts.values())}


def _meaning(run: Run, metric: str) -> str:
    """What a run declares of a metric, as JSON; empty where it declares nothing."""
    if metric not in run.metrics:
        return ""
    said = _METRIC.dump_python(run.metrics[metric], exclude_defaults=True)
    return json.dumps(said, sort_keys=True)


def _run(rows: list[dict[str, Any]]) -> Run | None:
    """The run of a file's rows; None where they are not of one run, or a name is not the key's."""
    of_run = ("source", "commit", "dirty", "date", "machine", "environment")
    first = {name: rows[0][name] for name in of_run}
    made, metrics = [], dict[str, Metric]()
    for row in rows:
        params = tuple(row["params"].items())
        key = Key(row["benchmark"], params, row["metric"], row["unit"], row["version"])
        if str(key) != row["name"] or any(row[name] != first[name] for name in of_run):
            return None
        if row["meaning"]:
            metrics[key.metric] = _METRIC.validate_json(row["meaning"])
        made.append(Measurement(key, tuple(row["samples"]), row["status"], row["detail"]))
    date = first.pop("date").replace(tzinfo=timezone.utc).isoformat()
    return Run(**first, date=date, measurements=tuple(made), metrics=metrics)
