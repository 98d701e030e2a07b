"""`actprune-ci history`: where the figures of a branch changed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from actprune_ci.cli.options import Branch, Glob, Ordered, Store, echo, tell_left_out
from actprune_ci.history.history import HistoryFinding, branch_commits, findings, load
from actprune_common.files import write_whole
from actprune_common.printable import visible


def command(
    store: Store,
    benchmarks: Glob = "*",
    branch: Branch = "main",
    repo: Ordered = Path(),
    smallest: Annotated[
        float, typer.Option(help="The least relative effect of a noisy figure that is told.")
    ] = 0.01,
    out: Annotated[Path | None, typer.Option(help="Also write the findings as JSON here.")] = None,
) -> None:
    """Find steps, creep and exact changes in the history of a branch, with their commit ranges.

    Exit code 0: analysed, whatever was found; 3: the store has nothing of this branch.
    """
    history = load(store, branch_commits(repo, branch), benchmarks)
    tell_left_out(history.skipped)
    found = findings(history, smallest)
    if out is not None:
        document = {"schema": 1, "branch": branch, "findings": [f.document for f in found]}
        write_whole(out, json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    echo(printed(found, len(history.commits), len(history.figures)), nl=False)


def printed(found: Sequence[HistoryFinding], commits: int, figures: int) -> str:
    """The findings as text: regressions that last first."""
    lines = [f"{figures} figures over {commits} commits: {len(found)} changes"]
    for finding in found:
        lines.append(f"{finding.verdict}: {finding.figure.name}, {finding.figure.metric}")
        lines.append(
            f"  {finding.change.kind} of {effect(finding)} in"
            f" {finding.good[:10]}..{finding.bad[:10]}, on {finding.figure.machine}"
        )
    return "\n".join(map(visible, lines)) + "\n"


def effect(finding: HistoryFinding) -> str:
    """The change with its levels and, where noise allows a doubt, its confidence."""
    change, unit = finding.change, finding.figure.unit
    sure = "" if change.kind == "exact" else f", confidence {min(change.confidence, 0.9999):.2%}"
    return f"{finding.size} ({change.before:.6g} -> {change.after:.6g} {unit}{sure})"
