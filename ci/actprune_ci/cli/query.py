"""`actprune-ci query`: SQL over a store."""

import csv
import io
import json
from typing import Annotated, Literal

import typer

from actprune_ci.cli.options import Store, tell_left_out
from actprune_ci.store.query import Rows, sql
from actprune_common.printable import printable, visible

RowsFormat = Literal["table", "csv", "json"]


def command(
    store: Store,
    question: Annotated[str, typer.Argument(metavar="SQL", help="What DuckDB is to answer.")],
    form: Annotated[RowsFormat, typer.Option("--format", help="How to print the rows.")] = "table",
) -> None:
    """Ask a store with SQL: its views are `measurements` and `samples` (docs/store.md)."""
    answer = sql(store, question)
    tell_left_out(answer.skipped.values())
    typer.echo(printed(answer, form), nl=False)


def printed(answer: Rows, form: RowsFormat) -> str:
    """The rows as text that ends with a line feed."""
    if form == "json":
        rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
        return json.dumps(rows, default=str, ensure_ascii=False, indent=0) + "\n"
    if form == "csv":
        made = io.StringIO()
        csv.writer(made, lineterminator="\n").writerows([answer.columns, *answer.rows])
        return made.getvalue()
    lines = [answer.columns, *(tuple(map(_cell, row)) for row in answer.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    return printable("\n".join(padded) + "\n")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else visible(value)
