"""`actprune-ci`: a command per module of this package."""

import sys
from importlib import import_module
from pkgutil import iter_modules

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
    made.callback()(_nothing)  # so that a single command is still named
    for module in iter_modules(__path__):
        if module.name == "__main__":
            continue
        command = import_module(f"{__name__}.{module.name}").command
        made.command(module.name.replace("_", "-"))(command)
    return made


def _nothing() -> None:
    """Records results, judges them, and shows them over commits."""


def main() -> None:
    """Run the command line; bad input is one line and exit code 2."""
    try:
        app()()
    except InputError as problem:
        sys.stderr.write(f"actprune-ci: error: {problem}\n")
        sys.exit(USAGE)
