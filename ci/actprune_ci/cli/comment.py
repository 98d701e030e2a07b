"""`actprune-ci comment`: a report on a pull request, in one comment that is kept up to date."""

from pathlib import Path
from typing import Annotated

import typer

from actprune_ci.publish import github
from actprune_common.errors import InputError
from actprune_common.files import contents


def command(
    pull: Annotated[int, typer.Option("--pr", min=1, help="The pull request's number.")],
    head: Annotated[str, typer.Option(help="The commit reported on; it must be its head.")],
    report: Annotated[Path, typer.Option(help="Markdown that is to be trusted: gate.md.")],
    source: Annotated[
        str, typer.Option("--from", help="The repository measured; its head's must be the same.")
    ] = "",
    name: Annotated[str, typer.Option(help="Of several comments, this one.")] = "benchmark",
) -> None:
    """Write the report as a comment, or put it in the place of the one written before.

    Through `gh`, with its token (GH_TOKEN) and repository (GH_REPO, or the one here).
    """
    if not name.replace("-", "").isalnum():
        raise InputError(f"--name: expected letters, digits and -, got {name!r}")
    try:
        body = contents(report).decode()
    except UnicodeDecodeError as problem:
        raise InputError(f"{report}: cannot be read ({problem})") from None
    done = github.report(pull, head, body, f"<!-- actprune-ci comment {name} -->", source)
    typer.echo(f"pull request {pull}: {done}")
