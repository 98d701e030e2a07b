"""`actprune-ci`: a command per module of this package."""

import sys
from collections.abc import Mapping
from importlib import import_module, metadata
from io import TextIOWrapper
from pkgutil import iter_modules
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from actprune_ci.cli.options import USAGE, tell
from actprune_ci.history.coverage import GapError
from actprune_ci.history.series import NoDataError
from actprune_ci.judge.report import INCONCLUSIVE, NO_DATA
from actprune_ci.measure.bisect import OpenError
from actprune_ci.measure.checkouts import BuildError
from actprune_common.errors import InputError
from actprune_common.printable import printable, visible

ENDS: Mapping[type[InputError], int] = {
    NoDataError: NO_DATA,
    GapError: NO_DATA,
    BuildError: NO_DATA,
    OpenError: INCONCLUSIVE,
}
"""What is no mistake of the user's, and its exit code."""


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


class _Commands(TyperGroup):
    """The commands, each with the exit code of what ends it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
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
    except InputError as problem:
        sys.stderr.write(f"actprune-ci: error: {printable(visible(problem))}\n")
        sys.exit(USAGE)
