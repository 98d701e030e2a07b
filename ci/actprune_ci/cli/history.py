"""`actprune-ci history`: where the figures of a branch changed."""

from pathlib import Path
from typing import Annotated

import typer

from actprune_ci.cli.options import (
    AllowMissing,
    Benchmarks,
    Branch,
    Ordered,
    PolicyFile,
    Store,
    TriageFile,
    Trials,
    echo,
    tell_left_out,
)
from actprune_ci.history.finding import HistoryFinding
from actprune_ci.judge import policy
from actprune_ci.triage import entries
from actprune_ci.triage.analysis import Analysis, analysed
from actprune_common.files import by_lines, write_whole
from actprune_common.printable import visible


def command(
    store: Store,
    benchmarks: Benchmarks = "",
    branch: Branch = "main",
    repo: Ordered = Path(),
    policy_file: PolicyFile = None,
    triage_file: TriageFile = None,
    smallest: Annotated[
        float | None,
        typer.Option(help="The least relative effect that is told, in place of the policy's."),
    ] = None,
    allow_missing: AllowMissing = False,
    trials: Trials = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the findings as JSON here.")] = None,
) -> None:
    """Find steps, creep and exact changes in the history of a branch, with their commit ranges.

    Exit code 0: analysed, whatever was found; 3: the store has nothing of this branch, or the clone
    lacks commits that a verdict would rest on.
    """
    rules, decided = policy.read(policy_file), entries.read(triage_file)
    chosen = branch, benchmarks, rules, decided, allow_missing, smallest, trials
    made = analysed(store, repo, *chosen)
    tell_left_out(made.history.skipped)
    if out is not None:
        write_whole(out, by_lines(made.document))
    echo(printed(made), nl=False)


STANDINGS = {
    "suspected": ", suspected: the next nights settle it",
    "shared": " with nearly all figures of its machine",
}


def printed(made: Analysis) -> str:
    """The findings as text: regressions that last first, those that somebody settled last."""
    figures, commits = len(made.history.figures), len(made.history.commits)
    lines = [f"{figures} figures over {commits} commits: {len(made.findings)} changes"]
    for finding in made.findings:
        settled = finding.acknowledged
        word = "acknowledged, " * (settled is not None) + finding.verdict
        word += STANDINGS.get(finding.standing, "")
        lines.append(f"{word}: {finding.figure.name}, {finding.figure.metric}")
        lines.append(
            f"  {finding.severity}: {finding.change.kind} of {effect(finding)} in"
            f" {finding.good[:10]}..{finding.bad[:10]}, on {finding.figure.machine}"
            f" ({finding.figure.environment})"
        )
        lines += [f"  {settled}"] if settled else []
    lines += [f"note: {note}" for note in made.notes]
    return "\n".join(map(visible, lines)) + "\n"


def effect(finding: HistoryFinding) -> str:
    """The change with its levels and, where noise allows a doubt, its confidence."""
    change, unit = finding.change, finding.figure.unit
    sure = "" if change.kind == "exact" else f", confidence {min(change.confidence, 0.9999):.2%}"
    return f"{finding.size} ({change.before:.6g} -> {change.after:.6g} {unit}{sure})"
