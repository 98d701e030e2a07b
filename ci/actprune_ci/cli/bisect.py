"""`actprune-ci bisect`: the commit that changed a figure."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from actprune_ci.cli.ab import limits
from actprune_ci.cli.options import PairCount, Python, Repo, Suite, echo, interruptible, tell
from actprune_ci.judge.report import INCONCLUSIVE
from actprune_ci.measure import ab, bisect
from actprune_ci.measure.checkouts import Checkouts, checked_out, resolve
from actprune_ci.measure.pairing import PairedFigure
from actprune_ci.model.reading import compiled
from actprune_common.errors import expected
from actprune_common.files import write_whole
from actprune_common.git import git
from actprune_common.printable import visible


def command(
    good: Annotated[str, typer.Argument(help="A commit before the change.")],
    bad: Annotated[str, typer.Argument(help="A commit after it; its suite measures all.")],
    benchmark: Annotated[
        str,
        typer.Option(
            "--benchmark",
            "--benchmarks",
            help="A regular expression found in one `benchmark(name=value, ...)` alone.",
        ),
    ],
    repo: Repo = Path(),
    suite: Suite = "benchmarks",
    budget: Annotated[float, typer.Option(min=0, help="Seconds of one comparison.")] = 180,
    pairs: PairCount = "8:60",
    repeats: Annotated[int, typer.Option(min=1, help="Comparisons before one is skipped.")] = 3,
    python: Python = sys.executable,
    out: Annotated[Path | None, typer.Option(help="Also write the outcome as JSON.")] = None,
) -> None:
    """Find the commit after GOOD, up to BAD, that changed a figure, by A/B runs against GOOD.

    Commits that do not build are skipped. Exit code 0: found; 3: GOOD or BAD does not build;
    4: no change is sure, or it came with one of several commits.
    """
    commits = resolve(repo, good), resolve(repo, bad)
    with interruptible(), checked_out(repo, python) as checkouts:
        figure = the_one(checkouts, commits[1], suite, benchmark)
        bounds = limits(pairs, budget, 0.02)
        folder = checkouts.suite(commits[1], suite)
        question = bisect.Question(checkouts, folder, figure, bounds, repeats)
        found = bisect.bisect(question, *commits, lambda probe: tell(told(repo, probe)))
    if out is not None:
        write_whole(out, json.dumps({"schema": 1, **asdict(found)}, indent=1) + "\n")
    echo(printed(repo, found), nl=False)
    if len(found.suspects) > 1:
        raise typer.Exit(INCONCLUSIVE)


def the_one(checkouts: Checkouts, commit: str, suite: str, benchmark: str) -> PairedFigure:
    """The one figure that a pattern fits. Raises InputError where it fits none or several."""
    pattern = compiled(benchmark)
    listed = ab.listed_by(checkouts.side(commit), checkouts.suite(commit, suite), checkouts.python)
    fitting = [key for key in listed.keys if pattern.search(str(key))]
    if len(fitting) != 1:
        names = "".join(f"; {key}" for key in fitting[:10])
        raise expected("--benchmark", f"one that {benchmark!r} fits", f"{len(fitting)}{names}")
    return PairedFigure(fitting[0], *listed.keys[fitting[0]])


def told(repo: Path, probe: bisect.Probe) -> str:
    """One comparison, in a line."""
    return f"{probe.answer:>5}  {subject(repo, probe.commit)}: {probe.detail}"


def printed(repo: Path, found: bisect.Bisection) -> str:
    """The outcome as text."""
    one_of = " one of" if len(found.suspects) > 1 else ""
    lines = [f"{found.key}: the change ({found.told}) came with{one_of}"]
    lines += [f"  {subject(repo, commit)}" for commit in found.suspects]
    if found.confirmed:
        lines.append(f"  {found.confirmed}, against the commit before")
    lines.append(f"{len(found.steps)} commits measured")
    return "\n".join(map(visible, lines)) + "\n"


def subject(repo: Path, commit: str) -> str:
    """A commit's short hash and its subject."""
    return git(repo, "log", "-1", "--format=%h %s", commit)
