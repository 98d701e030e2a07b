"""`actprune doctor`."""

import typer

from actprune_bench.cli.common import command_line
from actprune_bench.records.environment import backends, environment, version


def command() -> None:
    """Say what this machine can run."""
    found = environment(command_line())
    for key in ("actprune", "python", "torch", "platform", "cpu", "isa", "cores", "threads"):
        typer.echo(f"{key:14} {found[key]}")
    typer.echo(f"{'memory':14} {int(str(found['memory_bytes'])) / 2**30:.0f} GiB")
    typer.echo(f"{'gpu':14} {found['gpu'] or 'none that torch can use'}")
    for package in ("triton", "cupy-cuda13x", "ray"):
        typer.echo(f"{package:14} {version(package) or 'not installed (optional)'}")
    for line in backends():
        typer.echo(line)
