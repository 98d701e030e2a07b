"""`actprune sweep`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from actprune_bench.cli.common import Out, Resume, command_line, folder_of, terminal
from actprune_bench.report.table import print_table
from actprune_bench.sweep import run
from actprune_bench.sweep.cells import DONE
from actprune_bench.sweep.config import SweepConfig
from actprune_bench.sweep.watch import print_result
from actprune_common.errors import InputError
from actprune_common.strict_yaml import load_yaml


def command(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A YAML file (docs/sweep.md); with --resume, the folder's."
        ),
    ] = None,
    out: Out = None,
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Of a Ray; without it, one is started here."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Cells at a time: 1; on Ray, as many as fit.", min=1)
    ] = None,
    resume: Resume = False,
) -> None:
    """Train a grid of formats, models, data and seeds, each in a process with limits.

    Finished cells are never run again. Exit code 1 where a cell failed for good.
    """
    if engine not in run.ENGINES:
        raise InputError(f"--engine: expected {' or '.join(run.ENGINES)}, got {engine!r}")
    if address is not None and engine != "ray":
        raise InputError("--address: expected with --engine ray")
    if out is None and (resume or config is None):
        raise InputError("--config, --out: expected a file, or the folder to --resume in")
    chosen = load_yaml(config, SweepConfig) if config else None
    folder, console = folder_of(out), terminal()
    chosen = run.find_config(folder, chosen, resume=resume)
    try:
        found = run.run_sweep(
            chosen,
            folder,
            words=command_line(),
            console=console,
            engine=engine,
            address=address,
            jobs=jobs,
        )
    except run.StoppedError as stopped:
        words = shlex.join(["actprune", "sweep", "--out", str(folder), "--resume"])
        typer.echo(f"actprune: stopped; what was done is kept: {words}", err=True)
        raise typer.Exit(128 + stopped.number) from None
    for made in found.results.values():  # print_result says what is not done
        print_table(made.model_copy(update={"not_done": []}), console)
    print_result(found, console)
    if not set(found.outcomes) <= {DONE, *chosen.accepted}:
        raise typer.Exit(1)
