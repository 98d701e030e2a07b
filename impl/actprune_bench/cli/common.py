"""What the commands share: common options, how errors are said, what is printed where."""

import functools
import shlex
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from actprune_common.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from actprune_bench.compare import ShapeConfig

Command = TypeVar("Command", bound=Callable[..., None])

Formats = Annotated[
    list[str] | None,
    typer.Option("--format", metavar="SPEC", help="Such as bsr:block=1x32,sparsity=0.9; repeat."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Folder for the results; without it, results/ and the time."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what the folder holds.")]


def guarded(function: Command) -> Command:
    """The command, whose bad input is one line and exit code 2, and whose Ctrl-C is one line."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except (InputError, OSError) as problem:
            text = " ".join(str(problem).split())
            typer.echo(f"actprune: error: {text}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("actprune: interrupted", err=True)
            raise typer.Exit(130) from None

    return called  # type: ignore[return-value]


def terminal() -> "Console":
    """Where tables go."""
    from rich.console import Console

    console = Console()
    # a file or a pipe has no width of its own: show everything
    return console if console.is_terminal else Console(width=max(console.width, 140))


def command_line() -> str:
    """What was called, as it would be typed again."""
    return shlex.join(["actprune", *sys.argv[1:]])


def new_folder() -> Path:
    """Where results go if nobody says."""
    return Path("results") / datetime.now(timezone.utc).strftime("%Y-%m-%dT%H%M%SZ")


def shape_of(text: str) -> "ShapeConfig":
    """One layer of --shape. Raises InputError."""
    from actprune_bench.compare import ShapeConfig

    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"--shape: expected ROWSxFEATURESxOUT_FEATURES, got {text!r}")
    rows, features, out_features = map(int, parts)
    return ShapeConfig(name=text, rows=rows, features=features, out_features=out_features)
