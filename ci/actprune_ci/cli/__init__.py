"""`actprune-ci`: a command per module of this package."""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from io import TextIOWrapper
from pkgutil import iter_modules
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from actprune_ci.cli.options import (
    INTERRUPTED,
    OURS,
    UNREAD,
    USAGE,
    refuse_empty_paths,
    tell,
)
from actprune_ci.history.coverage import GapError
from actprune_ci.history.series import NoDataError
from actprune_ci.judge.report import BROKEN, GOOD, INCONCLUSIVE, NO_DATA, REGRESSION
from actprune_ci.measure.bisect import OpenError
from actprune_ci.measure.checkouts import BuildError
from actprune_common.errors import InputError

ENDS: Mapping[type[InputError], int] = {
    NoDataError: NO_DATA,
    GapError: NO_DATA,
    BuildError: NO_DATA,
    OpenError: INCONCLUSIVE,
}
"""What is no mistake of the user's, and its exit code."""
CODES: Sequence[tuple[int, str, str]] = (
    (GOOD, "done; of gate and nightly: good", "every command"),
    (REGRESSION, "regression, or a step of the night failed", "gate, nightly"),
    (USAGE, "bad input; of record: some files were set aside", "every command"),
    (
        NO_DATA,
        "nothing was measured, recorded or found",
        "ab, bisect, gate, history, nightly, publish, record",
    ),
    (INCONCLUSIVE, "inconclusive", "bisect, gate, nightly"),
    (BROKEN, "the machine is broken", "gate, nightly"),
    (OURS, "a mistake of actprune-ci's own, with a traceback", "every command"),
    (INTERRUPTED, "interrupted, by Ctrl-C or SIGTERM", "every command"),
    (UNREAD, "nobody reads the output any more", "every command"),
)
"""Every exit code: number, meaning, commands."""


def app() -> typer.Typer:
    """The command line, with every module of this package in it."""
    made = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        cls=_Commands,
    )
    made.callback()(_root)
    for module in iter_modules(__path__):
        if command := getattr(import_module(f"{__name__}.{module.name}"), "command", None):
            refuse_empty_paths(command)
            made.command(module.name.replace("_", "-"))(command)
    return made


def _version(value: bool) -> None:
    if value:
        try:
            version = metadata.version("actprune")
        except metadata.PackageNotFoundError:  # run from a checkout
            version = "of a checkout that is not installed"
        typer.echo(f"actprune-ci {version}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Records results, judges them, and shows them over commits."""


class UnreadError(Exception):
    """Nobody reads the output any more."""


class _Commands(TyperGroup):
    """The commands, each with the exit code of what ends it."""

    def get_help(self, ctx: Any) -> str:
        rows = (f"  {code:>3}  {meaning:<50} {by}" for code, meaning, by in CODES)
        return "\n".join([super().get_help(ctx), "", "Exit codes:", *rows])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # which typer would end with 1
            raise UnreadError from None
        except tuple(ENDS) as problem:
            tell(f"actprune-ci: {problem}")
            raise typer.Exit(ENDS[type(problem)]) from None


def main() -> None:
    """Run the command line; bad input is one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):  # one that is not UTF-8 has no arrows
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()()
    except UnreadError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        sys.exit(UNREAD)
    except InputError as problem:
        tell(f"actprune-ci: error: {problem}")
        sys.exit(USAGE)
