"""Questions to a store: DuckDB over all its files, in a folder or in an object store."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from actprune_ci.store.store import COLUMNS, RUNS, SCHEMA, as_map, connect, one_line, scan, text
from actprune_common.errors import InputError

Answer = TypeVar("Answer")
EXTENSION = {"az": "azure", "abfss": "azure", "hf": "httpfs"}  # the others: httpfs

_VIEWS = """
CREATE VIEW measurements AS
  SELECT source, "commit", dirty, date, machine, environment, name, benchmark, params, metric, unit,
    status, detail, samples, list_aggregate(samples, 'median') AS value,
    parse_filename(filename, true) AS run, '' AS version, '' AS meaning,
    coalesce(nullif(environment['env_name'], ''), source || '-py'
      || coalesce(nullif(regexp_extract(environment['python'], '^\\d+\\.\\d+'), ''), 'unknown'))
      AS env_name
  FROM {rows} WHERE CASE WHEN schema = {schema} THEN true ELSE error('schema') END;
CREATE VIEW samples AS
  SELECT * EXCLUDE (samples, value, detail, status), unnest(samples) AS sample,
    generate_subscripts(samples, 1) AS number
  FROM measurements WHERE len(samples) > 0;
"""


@dataclass(frozen=True)
class Rows:
    """The answer to a question, and the store's files that it leaves out."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    skipped: Mapping[str, str]
    """Corrupt or foreign file: reason."""


def sql(store: str | Path, question: str, values: Mapping[str, object] | None = None) -> Rows:
    """The rows that DuckDB answers over the views `measurements` and `samples`.

    `store` is a folder, or an object store's URL (s3://bucket/folder); `values` fill in $names.
    A file of the store that cannot be read is left out and named in the answer. Raises InputError
    for a store without runs, a question that DuckDB refuses, and a URL without its extension.
    """

    def ask(connection: Any) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        done = connection.execute(question, dict(values) if values else None)
        return tuple(column[0] for column in done.description or ()), done.fetchall()

    (columns, rows), skipped = over(store, ask)
    return Rows(columns, rows, skipped)


def over(store: str | Path, ask: Callable[[Any], Answer]) -> tuple[Answer, Mapping[str, str]]:
    """`ask` of a DuckDB connection with the views; again without the files that cannot be read.

    The second value names those files and says why. Raises what `sql` does.
    """
    connection = _connected(str(store))
    files, skipped = _files(connection, str(store)), dict[str, str]()
    while True:
        try:
            connection.execute(_VIEWS.format(rows=scan(files), schema=SCHEMA))
            return ask(connection), skipped
        except duckdb.Error as problem:
            connection = _connected(str(store))  # the other one is as the question left it
            found = {} if skipped else {f: why for f in files if (why := _reason(connection, f))}
            if not found:
                raise InputError(f"query: {one_line(problem)}") from None
        skipped, files = found, [name for name in files if name not in found]
        if not files:
            raise InputError(f"{store}: no file of it can be read: {next(iter(skipped.values()))}")


def measurements(
    store: str | Path,
    *,
    benchmark: str = "",
    params: Mapping[str, str] | None = None,
    metric: str = "",
    machine: str = "",
    commits: Collection[str] = (),
    since: str = "",
    until: str = "",
    columns: Collection[str] = ('"commit"', "date", "machine", "name", "metric", "unit", "samples"),
) -> Rows:
    """The measurements that match everything given, oldest first, as plain rows of `columns`.

    `benchmark` is a regular expression found anywhere in `benchmark(name=value, ...)`; `params` the
    parameters that must have these values; `commits` full hashes (of a range: `git rev-list A..B`);
    `since` <= date < `until`, ISO 8601 in UTC. Raises InputError as `sql` does.
    """
    question = f"""
      SELECT {", ".join(columns)} FROM measurements
      WHERE regexp_matches(name, $benchmark)
        AND list_has_all(map_entries(params), map_entries($params::MAP(VARCHAR, VARCHAR)))
        AND $metric IN ('', metric) AND $machine IN ('', machine)
        AND (len($commits) = 0 OR list_contains($commits, "commit"))
        AND date >= coalesce(nullif($since, '')::TIMESTAMP, '-infinity')
        AND date < coalesce(nullif($until, '')::TIMESTAMP, 'infinity')
      ORDER BY date, run, name, metric
    """
    values = {"benchmark": benchmark, "params": as_map(params or {}), "commits": list(commits)}
    return sql(
        store,
        question,
        {**values, "metric": metric, "machine": machine, "since": since, "until": until},
    )


def _files(connection: Any, store: str) -> list[str]:
    """All files of runs, in order: their names begin with the date."""
    pattern = f"{store.rstrip('/')}/{RUNS}/*.parquet"
    try:
        found = connection.execute(f"SELECT file FROM glob({text(pattern)})").fetchall()
    except duckdb.Error as problem:
        raise InputError(f"{store}: cannot be listed: {one_line(problem)}") from None
    if not found:
        raise InputError(f"{store}: no runs in this store (expected {pattern})")
    return sorted(name for (name,) in found)


def _connected(place: str) -> Any:
    """A DuckDB with the extension that a place, if it is a URL, needs."""
    connection = connect()
    scheme, separator, _ = place.partition("://")
    name = EXTENSION.get(scheme, "httpfs")
    try:
        if separator:
            connection.execute(f"LOAD {name}")
    except duckdb.Error:
        raise InputError(
            f"{place}: needs DuckDB's extension {name}: where there is a network, run once"
            f" python -c \"import duckdb; duckdb.sql('INSTALL {name}')\""
        ) from None
    return connection


def _reason(connection: Any, name: str) -> str:
    """Why a file cannot be read to its last byte, or is not of this schema; nothing where it is."""
    try:
        found = connection.execute(f"DESCRIBE SELECT * FROM read_parquet({text(name)})").fetchall()
        types = {column[0]: column[1] for column in found}
        for column, kind in COLUMNS.items():
            if types.get(column) != kind:
                return (
                    f"{name}: {column}: expected {kind}, got {types.get(column, 'no such column')}"
                )
        schemas = connection.execute(f"SELECT DISTINCT schema FROM read_parquet({text(name)})")
        if (came := schemas.fetchall()) != [(SCHEMA,)]:
            return f"{name}: schema: expected {SCHEMA}, got {', '.join(str(s) for (s,) in came)}"
        everything = ", ".join(f"max(hash({column}))" for column in COLUMNS)
        connection.execute(f"SELECT {everything} FROM read_parquet({text(name)})").fetchall()
    except duckdb.Error as problem:
        return f"{name}: {one_line(problem)}"
    return ""
