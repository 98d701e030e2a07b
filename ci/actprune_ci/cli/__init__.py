"""`actprune-ci`: a command per module of this package."""

import sys
from importlib import import_module, metadata
from pkgutil import iter_modules
from typing import Annotated

import typer

from actprune_common.errors import InputError

USAGE = 2


def app() -> typer.Typer:
    """The command line, with every module of this package in it."""
    made = typer.Typer(
        help="Records results, judges them, and shows them over commits.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    made.callback()(_root)
    for module in iter_modules(__path__):
        if module.name == "__main__":
            continue
        command = import_module(f"{__name__}.{module.name}").command
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


def main() -> None:
    """Run the command line; bad input is one line and exit code 2."""
    try:
        app()()
    except InputError as problem:
        sys.stderr.write(f"actprune-ci: error: {problem}\n")
        sys.exit(USAGE)
