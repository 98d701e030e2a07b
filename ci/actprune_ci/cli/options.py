"""Options and exit codes that several commands share."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

USAGE, INTERRUPTED = 2, 130
"""Exit codes beside those of actprune_ci.judge.report."""

Store = Annotated[str, typer.Argument(help="A store's folder, or its URL (s3://...).")]
PolicyFile = Annotated[Path, typer.Option("--policy", help="The policy, YAML.")]
POLICY = Path("ci/policy.yml")
Repo = Annotated[Path, typer.Option(help="The repository.")]
Ordered = Annotated[Path, typer.Option("--repo", help="The repository, for the order of commits.")]
Branch = Annotated[str, typer.Option(help="Whose commits, by first parents.")]
Glob = Annotated[str, typer.Option(help="A glob over `benchmark(name=value, ...)`.")]
Benchmarks = Annotated[
    str,
    typer.Option(help="A regular expression found in `benchmark(name=value, ...)`; all without."),
]
Suite = Annotated[str, typer.Option(help="The asv suite's folder in it.")]
Python = Annotated[
    str, typer.Option(help="The interpreter that measures, with all but the project.")
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
    typer.echo(line, err=True)


def tell_left_out(reasons: Iterable[str]) -> None:
    """Why files of a store were left out, on stderr."""
    for reason in reasons:
        tell(f"left out: {reason}")
