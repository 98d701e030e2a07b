"""`actprune-ci export`: a store for other tools."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from actprune_ci.cli.options import Store, tell, tell_left_out
from actprune_ci.store import export


def command(
    form: Annotated[
        Literal["asv", "csv"], typer.Argument(help="asv: a results folder; csv: a line per sample.")
    ],
    store: Store,
    out: Annotated[Path, typer.Argument(help="The folder (asv) or file (csv) to write.")],
) -> None:
    """Write a store as asv's results folder, for `asv publish`, or as CSV."""
    if form == "csv":
        tell_left_out(export.csv(store, out))
        typer.echo(f"{out}: written")
    else:
        exported = export.asv(store, out)
        typer.echo(f"{out}: {exported.commits} commits, {exported.benchmarks} benchmarks")
        for note in exported.notes:
            tell(note)
