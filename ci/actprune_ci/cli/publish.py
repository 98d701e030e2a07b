"""`actprune-ci publish`: a store as a folder of pages."""

from pathlib import Path
from typing import Annotated, Any

import typer

from actprune_ci.cli.options import Benchmarks, Branch, Ordered, Store, tell, tell_left_out
from actprune_ci.history.series import branch_commits
from actprune_ci.publish.dashboard import asv_site, data, libraries, site
from actprune_ci.publish.folder import refilled
from actprune_common.errors import InputError
from actprune_common.files import contents, json_value


def command(
    store: Store,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    repo: Ordered = Path(),
    branch: Branch = "main",
    benchmarks: Benchmarks = "",
    gate: Annotated[list[Path] | None, typer.Option(help="A gate.json to show.")] = None,
    require_asv: Annotated[
        bool, typer.Option(help="Without asv's site, write nothing and end with 2.")
    ] = False,
) -> None:
    """Write asv's site and our own pages, which open from a file share without a network.

    --out is new, empty, or of an earlier time, whose pages are replaced; other files stay.
    --benchmarks chooses what our own pages show. Exit code 0: written, without asv's site where asv
    or its libraries cannot be had, which the pages say; 3: the store has nothing of this branch.
    """
    gates = [_report(path) for path in gate or []]
    board = data.board(store, branch_commits(repo, branch), branch, gates, benchmarks)
    tell_left_out(board.history.skipped)
    missing = ""
    with refilled(out) as making:
        try:
            asv_site.write(store, making / "asv", repo, branch, libraries.cache_folder())
        except InputError as problem:
            if require_asv:
                raise
            missing = str(problem)
            tell(f"asv's site is left out: {missing}")
        site.write(board, making, missing)
    typer.echo(
        f"{out / 'index.html'}: {len(board.history.figures)} figures over"
        f" {len(board.history.commits)} commits, {len(board.findings)} changes"
    )


def _report(path: Path) -> dict[str, Any]:
    """A gate's report, as its JSON. Raises InputError."""
    report = json_value(contents(path), path)
    if not (isinstance(report, dict) and {"verdict", "code", "head", "machine"} <= set(report)):
        raise InputError(f"{path}: expected the gate's report, got something else")
    return report
