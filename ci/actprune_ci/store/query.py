"""Questions to a store: DuckDB over all its files, in a folder or in an object store."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from actprune_ci.store.integrity import one_of_each, why_changed
from actprune_ci.store.store import (
    COLUMNS,
    RUNS,
    SCHEMA,
    SINCE_2,
    as_map,
    connect,
    contained,
    one_line,
    scan,
    schema_of,
    text,
)
from actprune_common.errors import InputError
from actprune_common.files import contents

Answer = TypeVar("Answer")
EXTENSION = {"az": "azure", "abfss": "azure", "hf": "httpfs"}  # the others: httpfs

AT_ONCE = 64
"""Files of an object store that are fetched at a time to be verified."""

_VIEWS = """
CREATE VIEW measurements AS
  SELECT source, "commit", dirty, date, machine, environment,
    coalesce(nullif(environment['env_name'], ''), source || '-py' || coalesce(nullif(
      regexp_extract(environment['python'], '^[0-9]+[.][0-9]+'), ''), 'unknown')) AS env_name,
    name, benchmark, params, metric, unit, version, meaning,
    status, detail, samples, list_aggregate(samples, 'median') AS value,
    parse_filename(filename, true) AS run
  FROM {rows} WHERE CASE WHEN schema <= {schema} THEN true ELSE error('schema') END;
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
    The question is one SELECT, which sees the store's files and no other, and writes nothing.
    A file of the store that is damaged is left out and named in the answer. Raises InputError for a
    store without runs, a question that DuckDB refuses, and a URL without its extension.
    """
    _check_one_select(question)

    def ask(connection: Any) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        done = connection.execute(question, dict(values) if values else None)
        return tuple(column[0] for column in done.description or ()), done.fetchall()

    (columns, rows), skipped = over(store, ask, locked=True)
    return Rows(columns, rows, skipped)


def over(
    store: str | Path, ask: Callable[[Any], Answer], *, locked: bool = False
) -> tuple[Answer, Mapping[str, str]]:
    """`ask` of a DuckDB connection with the views; again without the files that cannot be read.

    The second value names those files and says why. `locked`: the connection reaches no other file
    and no network, and cannot be told to. Raises what `sql` does.
    """
    connection = _connected(str(store))
    files, skipped = verified(connection, str(store))
    while files:
        try:
            connection.execute(_VIEWS.format(rows=scan(files), schema=SCHEMA))
            if locked:
                _lock(connection, files)
            return ask(connection), skipped
        except duckdb.Error as problem:
            connection = _connected(str(store))  # the other one is as the question left it
            found = {f: why for f in files if (why := _reason(connection, f))}
            if not found:
                raise InputError(f"query: {one_line(problem)}") from None
        files = [name for name in files if name not in found]
        skipped = dict(sorted({**skipped, **found}.items()))
    raise InputError(f"{store}: no file of it can be read: {next(iter(skipped.values()))}")


def _check_one_select(question: str) -> None:
    try:
        kinds = [statement.type for statement in connect().extract_statements(question)]
    except duckdb.Error as problem:
        raise InputError(f"query: {one_line(problem)}") from None
    if kinds != [duckdb.StatementType.SELECT]:
        came = ", ".join(kind.name for kind in kinds) or "nothing"
        raise InputError(f"query: expected one SELECT, which changes nothing, got {came}")


def _lock(connection: Any, files: Sequence[str]) -> None:
    connection.execute(f"SET allowed_paths = [{', '.join(map(text, files))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


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


def verified(connection: Any, store: str) -> tuple[list[str], Mapping[str, str]]:
    """The files of a store that are what was recorded, one of each run; why each other is not."""
    files = _files(connection, store)
    if "://" in store:
        bad = _changed_elsewhere(connection, files)
    else:
        bad = {name: why for name in files if (why := _changed_here(name))}
    kept = one_of_each(name for name in files if name not in bad)
    for name in kept:
        if schema_of(name) == 1:  # its bytes have no digest, so all its rows must be read
            try:
                contained(connection, name)
            except InputError as problem:
                bad[name] = str(problem)
    return [name for name in kept if name not in bad], dict(sorted(bad.items()))


def _changed_here(name: str) -> str:
    try:
        return why_changed(name, contents(Path(name)))
    except InputError as problem:
        return str(problem)


def _changed_elsewhere(connection: Any, files: Sequence[str]) -> dict[str, str]:
    """Why files of an object store are not what was recorded; several are fetched at a time."""
    bad = {}
    for first in range(0, len(files), AT_ONCE):
        batch = files[first : first + AT_ONCE]
        listed = ", ".join(map(text, batch))
        question = f"SELECT filename, content FROM read_blob([{listed}])"
        try:
            rows = connection.execute(question).fetchall()
        except duckdb.Error as problem:
            if len(batch) == 1:
                bad[batch[0]] = f"{batch[0]}: {one_line(problem)}"
            else:
                for each in batch:
                    bad |= _changed_elsewhere(connection, [each])
        else:
            bad |= {name: why for name, content in rows if (why := why_changed(name, content))}
    return bad


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
        schema = schema_of(name)
        columns = [name for name in COLUMNS if schema > 1 or name not in SINCE_2]
        for column in columns:
            if types.get(column) != COLUMNS[column]:
                return (
                    f"{name}: {column}: expected {COLUMNS[column]},"
                    f" got {types.get(column, 'no such column')}"
                )
        schemas = connection.execute(f"SELECT DISTINCT schema FROM read_parquet({text(name)})")
        if (came := schemas.fetchall()) != [(schema,)]:
            return f"{name}: schema: expected {schema}, got {', '.join(str(s) for (s,) in came)}"
        everything = ", ".join(f"max(hash({column}))" for column in columns)
        connection.execute(f"SELECT {everything} FROM read_parquet({text(name)})").fetchall()
    except (duckdb.Error, UnicodeError) as problem:
        return f"{name}: {one_line(problem)}"
    return ""
