"""`actprune-ci issues`: one issue on GitHub per cause of regressions."""

from pathlib import Path
from typing import Annotated

import typer

from actprune_ci.cli.options import CulpritsFile, Ordered, echo, tell
from actprune_ci.model.documents import GateJson, HistoryJson
from actprune_ci.model.reading import read
from actprune_ci.publish import culprits, github
from actprune_ci.publish.commits import Repository
from actprune_ci.publish.issues import plan
from actprune_common.errors import InputError
from actprune_common.printable import visible


def command(
    gate: Annotated[Path | None, typer.Option(help="gate.json.")] = None,
    history: Annotated[Path | None, typer.Option(help="history.json.")] = None,
    culprits_file: CulpritsFile = None,
    repo: Ordered = Path(),
    most: Annotated[int, typer.Option(min=1, help="New issues at a time.")] = 20,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; GitHub is not asked.")
    ] = False,
) -> None:
    """Open an issue for each cause of regressions, update it, close it when all is good again.

    Through `gh`, with its token (GH_TOKEN) and repository (GH_REPO, or the one here).
    """
    if gate is None and history is None:
        raise InputError("issues: expected --gate, --history or both, got neither")
    of_gate = read(gate, GateJson) if gate else None
    of_history = read(history, HistoryJson) if history else None
    known = [] if dry_run else github.issues()
    actions = plan(of_gate, of_history, known, Repository(repo), culprits.load(culprits_file))
    new = [action for action in actions if action.kind == "create"]
    for action in (*(a for a in actions if a.kind != "create"), *new[:most]):
        if not dry_run:
            github.act(action)
        number = f" {action.number}" if action.number else ""
        echo(visible(f"{action.kind}{number}: {action.title or action.comment}"))
    if len(new) > most:
        tell(f"{len(new) - most} more causes have no issue yet (--most)")
    if not actions:
        echo("nothing to be done")
