"""`actprune compare`."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from actprune_bench.cli.common import Formats, Out, Resume, command_line, folder_of, show, terminal
from actprune_bench.compare.config import CompareConfig
from actprune_bench.compare.run import measure, open_folder
from actprune_common.strict_yaml import check, load_yaml


def command(
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A YAML file; without it, a quick comparison."),
    ] = None,
    format: Formats = None,
    data: Annotated[
        str | None, typer.Option(help="embedded, fashion-mnist:DIR, cifar10:DIR or folder:DIR.")
    ] = None,
    out: Out = None,
    resume: Resume = False,
) -> None:
    """Compare formats as kernels and as training runs: a table, results.json and index.html."""
    folder = folder_of(out, resume=resume)
    chosen = load_yaml(config, CompareConfig) if config else None
    changes: dict[str, Any] = {"formats": format} if format else {}
    base = (chosen or CompareConfig()).values()
    if data is not None:
        changes["training"] = {**(base["training"] or {}), "data": data}
    if changes:
        chosen = check(CompareConfig, {**base, **changes})
    console = terminal()
    chosen = open_folder(folder, chosen, resume=resume)
    try:
        made = measure(chosen, folder, command=command_line(), console=console)
    except KeyboardInterrupt:
        words = shlex.join(["actprune", "compare", "--out", str(folder), "--resume"])
        typer.echo(f"actprune: interrupted; what was measured is kept: {words}", err=True)
        raise typer.Exit(130) from None
    show(made, folder, console)
