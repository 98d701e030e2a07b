"""The command line: a command per module of this package."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated

import typer

from actprune_bench.cli.common import Guarded

app = typer.Typer(
    cls=Guarded,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compare dense, COO, CSR and block-sparse activation pruning: memory, speed, accuracy.",
)


def _version(value: bool) -> None:
    if value:
        import actprune

        typer.echo(f"actprune {actprune.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for module in iter_modules(__path__):
    if module.name != "common":
        app.command(module.name)(import_module(f"{__name__}.{module.name}").command)


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2."""
    app()
