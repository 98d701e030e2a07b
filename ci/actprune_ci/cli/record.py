"""`actprune-ci record`: results of any known tool into the store."""

from pathlib import Path
from typing import Annotated

import typer

from actprune_ci.cli.options import USAGE, interruptible, tell
from actprune_ci.judge.report import NO_DATA
from actprune_ci.store.record import record


def command(
    paths: Annotated[list[Path], typer.Argument(help="Result files, or folders of them.")],
    store: Annotated[Path, typer.Option(help="The store's folder; made where it is missing.")],
    commit: Annotated[
        str | None, typer.Option(help="The commit measured, whatever the files say.")
    ] = None,
    machine: Annotated[
        str | None, typer.Option(help="The machine's name, whatever the files say.")
    ] = None,
) -> None:
    """Record results of asv, pytest-benchmark, criterion, google-benchmark, nvbench, hyperfine,
    github-action-benchmark, actprune, and A/B runs.

    Exit code 0: all of them are in the store; 2: some were set aside; 3: none was recorded.
    """
    with interruptible():  # so that a file begun is taken away, not left behind
        outcomes = record(paths, store, commit, machine)
    aside = [outcome.reason for outcome in outcomes if outcome.status == "set aside"]
    for reason in aside:
        tell(f"set aside: {reason}")
    files = [outcome.files for outcome in outcomes if outcome.status == "recorded"]
    typer.echo(
        f"{store}: {len(files)} files recorded ({sum(map(len, files))} runs),"
        f" {len(outcomes) - len(files) - len(aside)} duplicates, {len(aside)} set aside"
        f"{'' if outcomes else ': no result file found'}"
    )
    if without := sum(outcome.without_commit for outcome in outcomes):
        tell(f"{without} runs have no commit, and so no place in a history: --commit gives one")
    if len(aside) == len(outcomes):
        raise typer.Exit(NO_DATA)
    if aside:
        raise typer.Exit(USAGE)
