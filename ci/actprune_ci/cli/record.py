"""`actprune-ci record`: results of any known tool into the store."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from actprune_ci.cli.options import USAGE, tell
from actprune_ci.judge.report import NO_DATA
from actprune_ci.store.record import Recording, record


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
    """Record asv, pytest-benchmark, actprune and A/B results.

    Exit code 0: all of them are in the store; 2: some were set aside; 3: none was recorded.
    """
    outcomes = record(paths, store, commit, machine)
    for outcome in outcomes:
        if outcome.status == "set aside":
            tell(f"set aside: {outcome.reason}")
    typer.echo(summary(outcomes, store))
    code = exit_code(outcomes)
    if code:
        raise typer.Exit(code)


def summary(outcomes: list[Recording], store: Path) -> str:
    """What became of all inputs, in one line."""
    counts = Counter(outcome.status for outcome in outcomes)
    runs = sum(len(outcome.files) for outcome in outcomes if outcome.status == "recorded")
    line = (
        f"{store}: {counts['recorded']} files recorded ({runs} runs),"
        f" {counts['duplicate']} duplicates, {counts['set aside']} set aside"
    )
    return line if outcomes else f"{line}: no result file found"


def exit_code(outcomes: list[Recording]) -> int:
    """0 where all are in the store, 3 where none is, 2 in between."""
    aside = sum(outcome.status == "set aside" for outcome in outcomes)
    if aside == len(outcomes):
        return NO_DATA
    return USAGE if aside else 0
