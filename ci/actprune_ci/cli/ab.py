"""`actprune-ci ab`: two commits, measured in pairs."""

import sys
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from actprune_ci.cli.options import (
    Benchmarks,
    PairCount,
    Python,
    Repo,
    Suite,
    echo,
    interruptible,
    tell,
)
from actprune_ci.judge.report import NO_DATA
from actprune_ci.measure import ab
from actprune_ci.measure.checkouts import checked_out, resolve
from actprune_ci.measure.pairing import Limits
from actprune_ci.model import serialise
from actprune_ci.model.runs import AbRun, Pairs
from actprune_common.errors import InputError
from actprune_common.git import uncommitted
from actprune_common.printable import visible


def command(
    base: Annotated[str, typer.Argument(help="The commit compared with.")],
    head: Annotated[str, typer.Argument(help="The commit judged; its suite measures both.")],
    repo: Repo = Path(),
    benchmarks: Benchmarks = "",
    suite: Suite = "benchmarks",
    budget: Annotated[
        float | None, typer.Option(min=0, help="Seconds; without it 180 for each figure.")
    ] = None,
    pairs: PairCount = "8:60",
    smallest: Annotated[
        float, typer.Option(help="The smallest relative effect that matters.")
    ] = 0.02,
    seed: Annotated[int, typer.Option(help="Of the order.")] = 0,
    python: Python = sys.executable,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("ab.json"),
) -> None:
    """Measure BASE and HEAD in fresh processes, alternating in random order, on this machine.

    Exit code 0: measured; 3: nothing was. `actprune-ci gate --ab` judges the file.
    """
    options = ab.Options(benchmarks, suite, limits(pairs, budget, smallest), seed)
    commits = resolve(repo, base), resolve(repo, head)
    if uncommitted(repo):
        tell("the working tree's uncommitted changes are not measured")

    def kept() -> str:
        return f"; what was measured is in {out}" if out.exists() else "; nothing was measured yet"

    with interruptible(kept), checked_out(repo, python) as checkouts:
        found = ab.run(checkouts, *commits, options, lambda r: serialise.write(out, r), tell)
    echo(printed(found), nl=False)
    if not any(pair.status == "ok" for pair in found.pairs):
        raise typer.Exit(NO_DATA)


def limits(pairs: str, budget: float | None, smallest: float) -> Limits:
    """The limits that the options give. Raises InputError for pairs that are none."""
    low, _, high = pairs.partition(":")
    if not (low.isdecimal() and high.isdecimal() and 1 <= int(low) <= int(high)):
        raise InputError(f"--pairs: expected MIN:MAX with 1 <= MIN <= MAX, got {pairs!r}")
    if not 0 < smallest < 10:
        raise InputError(f"--smallest: expected a relative effect above 0, got {smallest:g}")
    return Limits(budget, int(low), int(high), smallest)


def printed(run: AbRun) -> str:
    """The run as text: a line per figure, then the notes."""
    lines = [f"{run.base[:10]}..{run.head[:10]} on {run.machine}, {run.seconds:.0f} s"]
    lines += [f"{told(pair):>24}  {pair.key}" for pair in run.pairs]
    lines += [f"note: {note.text}" for note in run.notes]
    return "\n".join(map(visible, lines)) + "\n"


def told(pair: Pairs) -> str:
    """The median change and the number of pairs, or why there is none."""
    if pair.status != "ok":
        return f"{pair.status}: {pair.detail}"
    if min(*pair.base, *pair.head) <= 0:
        change = f"{median(pair.head) - median(pair.base):+g}"
    else:
        ratios = [h / b - 1 for b, h in zip(pair.base, pair.head, strict=True)]
        change = f"{median(ratios):+.2%}"
    return f"{change} in {len(pair.base)} pairs"
