"""What the commands share: common options, how errors are said, what is printed where."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from actprune_bench.compare.config import ShapeConfig
from actprune_bench.compare.run import PAGE
from actprune_bench.report.page import write_page
from actprune_bench.report.table import print_table
from actprune_common.errors import InputError
from actprune_common.results import Results

Formats = Annotated[
    list[str] | None,
    typer.Option(metavar="SPEC", help="Such as bsr:block=1x32,sparsity=0.9; repeat."),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(metavar="RxFxO", help="Rows x features x out_features; repeat for several."),
]
Model = Annotated[
    str,
    typer.Option(help="resmlp_tiny, resmlp_s12, ...; or package.module:factory of your own model."),
]
Batch = Annotated[
    str | None,
    typer.Option(
        metavar="N|SHAPE",
        help="Images over all devices; of your own model a shape (4x3x224x224, 4x128:int64), "
        "without it what the factory returns beside the model.",
    ),
]
OfImages = Annotated[int, typer.Option(help="Of the images.", min=1)]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder for the results; without it, results/ and the time."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what the folder holds.")]


class Guarded(TyperGroup):
    """The commands: bad input of any is one line and exit code 2, and Ctrl-C is one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (InputError, OSError) as problem:
            text = " ".join(str(problem).split())
            typer.echo(f"actprune: error: {text}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("actprune: interrupted", err=True)
            raise typer.Exit(130) from None


def terminal() -> Console:
    """Where tables go."""
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width of its own: show everything
        console.width = max(console.width, 140)
    return console


def command_line() -> str:
    """What was called, as it would be typed again."""
    return shlex.join(["actprune", *sys.argv[1:]])


def folder_of(out: Path | None, *, resume: bool = False) -> Path:
    """Where results go. Raises InputError where nobody says in which folder to resume."""
    if resume and out is None:
        raise InputError("--resume: expected --out to name the folder to go on in")
    return out or Path("results") / datetime.now(timezone.utc).strftime("%Y-%m-%dT%H%M%SZ")


def _new(file: Path | None) -> Path | None:
    """Raise InputError where a file that is to be written is there, or where its folder is not."""
    if file is not None and file.exists():
        raise InputError(f"{file}: is there already; name another file")
    if file is not None and not file.absolute().parent.is_dir():
        raise InputError(f"{file}: its folder is not there")
    return file


Json = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the records there, as JSON.", callback=_new),
]


@contextmanager
def predicting(console: Console) -> Iterator[Callable[[str], None]]:
    """A line on the terminal while peaks are predicted; call it with the spec whose turn it is."""
    with console.status("predicting peaks") as status:
        yield lambda spec: status.update(f"predicting the peak of {spec}")


def show(made: Results, folder: Path, console: Console) -> None:
    """Write the page of `made`, and print its table and where the page is."""
    write_page(made, folder / PAGE)
    print_table(made, console)
    console.print(f"the page: {folder / PAGE}", soft_wrap=True)


def shape_of(text: str) -> ShapeConfig:
    """One layer of --shape. Raises InputError."""
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"--shape: expected ROWSxFEATURESxOUT_FEATURES, got {text!r}")
    rows, features, out_features = map(int, parts)
    return ShapeConfig(name=text, rows=rows, features=features, out_features=out_features)
