"""`actprune-ci publish`: a store as a folder of pages."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from actprune_ci.history.history import NoDataError, branch_commits
from actprune_ci.publish.dashboard import asv_site, data, libraries, site
from actprune_common.errors import InputError

NO_DATA = 3


def command(
    store: Annotated[str, typer.Argument(help="A store's folder, or its URL (s3://...).")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    repo: Annotated[Path, typer.Option(help="The repository, for the order of commits.")] = Path(),
    branch: Annotated[str, typer.Option(help="Whose commits, by first parents.")] = "main",
    benchmarks: Annotated[
        str, typer.Option(help="A glob over `benchmark(name=value, ...)`, for our own pages.")
    ] = "*",
    gate: Annotated[list[Path] | None, typer.Option(help="A gate.json to show.")] = None,
    require_asv: Annotated[
        bool, typer.Option(help="Without asv's site, write nothing and end with 2.")
    ] = False,
) -> None:
    """Write asv's site and our own pages, which open from a file share without a network.

    Exit code 0: written, without asv's site where asv or its libraries cannot be had, which the
    pages say; 3: the store has nothing of this branch.
    """
    gates = [_report(path) for path in gate or []]
    commits = branch_commits(repo, branch)
    try:
        board = data.board(store, commits, branch, gates, benchmarks)
    except NoDataError as problem:
        typer.echo(f"actprune-ci: {problem}", err=True)
        raise typer.Exit(NO_DATA) from None
    for reason in board.history.skipped:
        typer.echo(f"left out: {reason}", err=True)
    site.clear(out)
    missing = ""
    try:
        asv_site.write(store, out / "asv", repo, branch, libraries.cache_folder())
    except InputError as problem:
        if require_asv:
            raise
        missing = str(problem)
        typer.echo(f"asv's site is left out: {missing}", err=True)
    site.write(board, out, missing)
    typer.echo(
        f"{out / 'index.html'}: {len(board.history.figures)} figures over"
        f" {len(board.history.commits)} commits, {len(board.findings)} changes"
    )


def _report(path: Path) -> dict[str, Any]:
    """A gate's report, as its JSON. Raises InputError."""
    try:
        report = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as problem:
        raise InputError(f"{path}: cannot be read: {problem}") from None
    if not (isinstance(report, dict) and {"verdict", "code", "head", "machine"} <= set(report)):
        raise InputError(f"{path}: expected the gate's report, got something else")
    return report
