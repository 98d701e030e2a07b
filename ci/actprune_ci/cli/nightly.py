"""`actprune-ci nightly`: the whole night."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from actprune_ci.cli.options import interruptible, tell
from actprune_ci.judge.report import BROKEN
from actprune_ci.nightly import config, summary
from actprune_ci.nightly.night import NightRun, begin, run
from actprune_common.errors import InputError
from actprune_common.files import alone, write_whole
from actprune_common.printable import printable

STEPS = Path("ci/nightly.yml")


def command(
    out: Annotated[Path, typer.Option(help="The night's folder: state, logs, results.")],
    config_file: Annotated[Path, typer.Option("--config", help="The steps, YAML.")] = STEPS,
    repo: Annotated[Path, typer.Option(help="The repository: its commit is measured.")] = Path(),
    store: Annotated[Path | None, typer.Option(help="The store, in place of the file's.")] = None,
    base: Annotated[
        str, typer.Option(help="The commit compared with; without it, the store's newest before.")
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the night in the folder, if there is one.")
    ] = False,
) -> None:
    """Run a night's steps, and give one verdict.

    Exit code: that of the gate; 1 also where another step failed; 3: no verdict; 5: broken machine
    (a GPU disappeared, the disk is full): the same command with --resume then goes on.
    """
    night = config.read(config_file)
    if store is not None:
        night = night.model_copy(update={"store": store.resolve()})
    again = f"the same command{'' if resume else ' with --resume'} goes on"
    with alone(out / ".lock", "another night is running in it"):
        made = begin(night, out, repo, base, resume)
        try:
            with interruptible(lambda: f"; {again}"):
                run(made, tell)
        except InputError as problem:  # the night ends, and goes on when there is room
            tell(f"actprune-ci: broken machine: {problem}; {again}")
            raise typer.Exit(BROKEN) from None
        show(made)
    raise typer.Exit(made.state.code or 0)


def show(made: NightRun) -> None:
    """The summary: on the terminal, in the night's folder, and on the job's page."""
    text = summary.markdown(made.night, made.state, made.folder)
    try:
        write_whole(made.folder / "summary.md", text)
        if page := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(page).open("a", encoding="utf-8") as file:
                file.write(text)
    except (InputError, OSError) as problem:
        tell(f"actprune-ci: the summary cannot be written: {problem}")
    with suppress(BrokenPipeError):
        sys.stdout.write(printable(summary.terminal(made.night, made.state, made.folder)))
