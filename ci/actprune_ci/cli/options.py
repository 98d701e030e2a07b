"""Options and exit codes that several commands share."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Annotated, get_args

import typer

from actprune_common.printable import printable, visible

USAGE, OURS, INTERRUPTED, UNREAD = 2, 70, 130, 141
"""Exit codes beside those of actprune_ci.judge.report.

Bad input; a mistake of ours (sysexits' EX_SOFTWARE); Ctrl-C; nobody reads the output any more.
"""


def path(given: str | Path) -> Path:
    """An option's path. An empty text, of a variable that is not set, is not this folder."""
    if given == "":
        raise typer.BadParameter("expected a path, got an empty text")
    return Path(given)


def place(given: str) -> str:
    """A path or URL, as it is; raises as `path` does."""
    path(given)
    return given


def refuse_empty_paths(command: Callable[..., None]) -> None:
    """Let every option and argument of a command that is annotated as a path be read by `path`."""
    for parameter in signature(command).parameters.values():
        kind, *about = get_args(parameter.annotation)
        inside = {
            kind,
            *get_args(kind),
            *chain(*map(get_args, get_args(kind))),
        }  # of list[Path] | None
        if Path in inside:
            about[0].parser = path


Store = Annotated[
    str, typer.Argument(help="A store's folder, or its URL (s3://...).", parser=place)
]
PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", help="The policy, YAML; ci/policy.yml where there is one."),
]
TriageFile = Annotated[
    Path | None,
    typer.Option("--triage", help="What was decided, YAML; ci/triage.yml where there is one."),
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Go on without commits that the clone lacks.")
]
CulpritsFile = Annotated[
    Path | None, typer.Option("--culprits", help="culprits.json: what bisections found.")
]
Repo = Annotated[Path, typer.Option(help="The repository.")]
Ordered = Annotated[Path, typer.Option("--repo", help="The repository, for the order of commits.")]
Branch = Annotated[str, typer.Option(help="Whose commits, by first parents.")]
Benchmarks = Annotated[
    str,
    typer.Option(help="A regular expression found in `benchmark(name=value, ...)`; all without."),
]
Trials = Annotated[
    int,
    typer.Option(min=0, help="Shuffle and plant each series so often, to tell the error rates."),
]
Suite = Annotated[str, typer.Option(help="The asv suite's folder in it.", parser=place)]
Python = Annotated[
    str,
    typer.Option(help="The interpreter that measures, with all but the project.", parser=place),
]
PairCount = Annotated[
    str, typer.Option(metavar="MIN:MAX", help="Of a figure that varies, before it is clear.")
]


@contextmanager
def interruptible(kept: Callable[[], str] = str) -> Iterator[None]:
    """A block that SIGTERM ends as Ctrl-C does, with an exit code and what `kept` says."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        tell(f"actprune-ci: interrupted{kept()}")
        raise typer.Exit(INTERRUPTED) from None


def tell(line: str) -> None:
    """Where things stand, on stderr."""
    typer.echo(printable(visible(line)), err=True)


def echo(text: str, *, nl: bool = True) -> None:
    """Lines on stdout; one of data must be `visible` before it stands in them."""
    typer.echo(printable(text), nl=nl)


def tell_left_out(reasons: Iterable[str]) -> None:
    """Why files of a store were left out, on stderr."""
    for reason in reasons:
        tell(f"left out: {reason}")
