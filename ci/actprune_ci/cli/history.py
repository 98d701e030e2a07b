"""`actprune-ci history`: where the figures of a branch changed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from actprune_ci.cli.options import (
    Benchmarks,
    Branch,
    Ordered,
    PolicyFile,
    Store,
    echo,
    tell_left_out,
)
from actprune_ci.history.coverage import GapError, coverage
from actprune_ci.history.history import HistoryFinding, about, findings, looked_at
from actprune_ci.history.series import History, branch_commits, load
from actprune_ci.judge import policy
from actprune_common.files import by_lines, write_whole
from actprune_common.printable import visible


def command(
    store: Store,
    benchmarks: Benchmarks = "",
    branch: Branch = "main",
    repo: Ordered = Path(),
    policy_file: PolicyFile = None,
    smallest: Annotated[
        float | None,
        typer.Option(help="The least relative effect that is told, in place of the policy's."),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on without commits that the clone lacks.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the findings as JSON here.")] = None,
) -> None:
    """Find steps, creep and exact changes in the history of a branch, with their commit ranges.

    Exit code 0: analysed, whatever was found; 3: the store has nothing of this branch, or the clone
    lacks commits that a verdict would rest on.
    """
    rules = policy.read(policy_file)
    commits = branch_commits(repo, branch)
    covered = coverage(store, repo, commits)
    if covered.gap and not allow_missing:
        raise GapError(covered.gap)
    history = load(store, commits, benchmarks)
    tell_left_out(history.skipped)
    found = findings(history, rules, smallest)
    notes = [*covered.notes(), *about(history, rules)]
    if out is not None:
        write_whole(out, document(branch, history, found, notes))
    echo(printed(found, history, notes), nl=False)


def document(
    branch: str, history: History, found: Sequence[HistoryFinding], notes: Sequence[str]
) -> str:
    """The findings as JSON (schema 2), with every figure that was looked at."""
    made = {
        "schema": 2,
        "branch": branch,
        "commits": history.commits,
        "notes": notes,
        "figures": looked_at(history),
        "findings": [finding.document for finding in found],
    }
    return by_lines(made)


def printed(found: Sequence[HistoryFinding], history: History, notes: Sequence[str]) -> str:
    """The findings as text: regressions that last first."""
    figures, commits = len(history.figures), len(history.commits)
    lines = [f"{figures} figures over {commits} commits: {len(found)} changes"]
    for finding in found:
        lines.append(f"{finding.verdict}: {finding.figure.name}, {finding.figure.metric}")
        lines.append(
            f"  {finding.severity}: {finding.change.kind} of {effect(finding)} in"
            f" {finding.good[:10]}..{finding.bad[:10]}, on {finding.figure.machine}"
            f" ({finding.figure.environment})"
        )
    lines += [f"note: {note}" for note in notes]
    return "\n".join(map(visible, lines)) + "\n"


def effect(finding: HistoryFinding) -> str:
    """The change with its levels and, where noise allows a doubt, its confidence."""
    change, unit = finding.change, finding.figure.unit
    sure = "" if change.kind == "exact" else f", confidence {min(change.confidence, 0.9999):.2%}"
    return f"{finding.size} ({change.before:.6g} -> {change.after:.6g} {unit}{sure})"
