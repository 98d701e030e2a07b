"""The command line: compare, kernels, train, sweep, report, advise, plan, doctor, static."""

from typing import Annotated

import typer

from actprune_bench.cli import answering, measuring
from actprune_bench.cli.common import guarded

__all__ = ["app", "main"]

app = typer.Typer(
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


for function in (
    measuring.compare,
    measuring.kernels,
    measuring.train,
    measuring.sweep,
    measuring.report,
    answering.advise,
    answering.plan,
    answering.doctor,
    answering.static,
):
    app.command()(guarded(function))


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2."""
    app()
