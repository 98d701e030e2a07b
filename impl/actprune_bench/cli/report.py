"""`actprune report`."""

from pathlib import Path
from typing import Annotated

import typer

from actprune_bench.cli.common import show, terminal
from actprune_common.results import merge, read


def command(
    files: Annotated[list[Path], typer.Argument(metavar="RESULTS.json...", help="One or several.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="For index.html; else beside the first file."),
    ] = None,
) -> None:
    """Make the table and the page of results, of several files of one machine too."""
    made = merge([read(file) for file in files])
    folder = out or files[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    show(made, folder, terminal())
