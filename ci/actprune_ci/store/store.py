"""The store: an append-only folder, a Parquet file per run, never rewritten.

    STORE/runs/20261123T080113Z-0a1b2c3d4e5f6071.parquet   a row per measurement, with its samples
    STORE/set-aside/NAME, NAME.reason.txt                  what could not be recorded, and why

A file's name is the date of its run and the digest of its contents: a run recorded twice meets its
own name, and two writers at once can only meet over the same run.
"""

import json
import sys
from array import array
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb

from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.model.serialise import check
from actprune_common.errors import InputError
from actprune_common.files import whole

SCHEMA = 1
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
}
"""The schema of a run's file: column and DuckDB type."""


def connect() -> Any:
    """An empty DuckDB in memory that fetches nothing from the network by itself."""
    return duckdb.connect(config={"autoinstall_known_extensions": "false"})


def canonical(run: Run) -> Run:
    """The same run as the store writes it: the date in UTC, facts and measurements in order."""
    date = datetime.fromisoformat(run.date.replace("Z", "+00:00"))
    date = date.replace(tzinfo=timezone.utc) if date.tzinfo is None else date
    return replace(
        run,
        date=date.astimezone(timezone.utc).isoformat(),
        environment=dict(sorted(run.environment.items())),
        measurements=tuple(sorted(run.measurements, key=lambda m: m.key)),
    )


def digest(run: Run) -> str:
    """16 hexadecimal digits of SHA-256 over all of a canonical run, its samples by their bits."""
    head = [run.source, run.commit, run.dirty, run.date, run.machine, dict(run.environment)]
    state = sha256(json.dumps(head).encode())
    for m in run.measurements:
        row = [m.key.benchmark, m.key.params, m.key.metric, m.key.unit, m.status, m.detail]
        state.update(json.dumps(row).encode())
        samples = array("d", m.samples)
        if sys.byteorder == "big":
            samples.byteswap()
        state.update(samples.tobytes())
    return state.hexdigest()[:16]


def write(run: Run, store: Path) -> Path | None:
    """The new file of a run in the store; None where the store already has this very run.

    Raises InputError for a run that is not sound, and where the file cannot be written whole: then
    nothing of it is left.
    """
    run = canonical(check(run))
    if not run.measurements:
        raise InputError("run: measurements: expected at least one, got none")
    path = place(run, store)
    if path.exists():
        return None
    try:
        with whole(path, overwrite=False) as beside:
            _write_parquet(run, beside)
    except FileExistsError:  # another writer was faster
        return None
    return path


def place(run: Run, store: Path) -> Path:
    """Where the store keeps a canonical run."""
    date = datetime.fromisoformat(run.date).strftime("%Y%m%dT%H%M%SZ")
    return store / RUNS / f"{date}-{digest(run)}.parquet"


def read(path: Path) -> Run:
    """The run in a file of the store, bit for bit as it was recorded.

    Raises InputError, which begins with the path, where the file is not of this schema or its
    contents do not have the digest in its name.
    """
    try:
        rows = connect().execute(f"SELECT {', '.join(COLUMNS)} FROM {scan([str(path)])}").fetchall()
    except duckdb.Error as problem:
        raise InputError(f"{path}: no file of this store: {one_line(problem)}") from None
    if not rows or rows[0][0] != SCHEMA:
        came = rows[0][0] if rows else "no row"
        raise InputError(f"{path}: schema: expected {SCHEMA}, got {came}")
    run = _run([dict(zip(COLUMNS, row, strict=True)) for row in rows])
    if not path.stem.endswith(f"-{digest(run)}"):
        raise InputError(f"{path}: digest: the contents have {digest(run)}, so they were changed")
    return run


def scan(files: list[str]) -> str:
    """The SQL that reads files or globs of the store, the file beside each row as `filename`."""
    listed = ", ".join(text(name) for name in files)
    return f"read_parquet([{listed}], filename=true, hive_partitioning=false)"


def text(value: str) -> str:
    """A text as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def one_line(problem: Exception) -> str:
    """The first line of an error's message."""
    return str(problem).strip().partition("\n")[0]


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
    }
    columns = [
        (f"unnest(${name}::{kind}[])" if isinstance(values[name], list) else f"${name}::{kind}")
        + f' AS "{name}"'
        for name, kind in COLUMNS.items()
    ]
    to = f"{text(str(path))} (FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false)"
    try:
        connect().execute(f"COPY (SELECT {', '.join(columns)}) TO {to}", values)
    except (duckdb.Error, UnicodeError) as problem:  # a full disk, for one
        raise InputError(f"{path.parent}: cannot be written: {one_line(problem)}") from None


def as_map(facts: Mapping[str, str]) -> dict[str, list[str]]:
    """What DuckDB takes for a MAP."""
    return {"key": list(facts), "value": list(facts.values())}


def _run(rows: list[dict[str, Any]]) -> Run:
    first = rows[0]
    measurements = tuple(
        Measurement(
            Key(row["benchmark"], tuple(row["params"].items()), row["metric"], row["unit"]),
            tuple(row["samples"]),
            row["status"],
            row["detail"],
        )
        for row in rows
    )
    own = {name: first[name] for name in ("source", "commit", "dirty", "machine", "environment")}
    date = first["date"].replace(tzinfo=timezone.utc).isoformat()
    return Run(**own, date=date, measurements=measurements)
