"""`actprune-ci ack`: a decision about a change, into the repository's triage."""

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from actprune_ci.cli.options import Ordered, echo, tell
from actprune_ci.history.series import branch_commits
from actprune_ci.measure.checkouts import resolve
from actprune_ci.model.documents import Entry as Figure
from actprune_ci.model.documents import GateJson, HistoryJson
from actprune_ci.model.reading import read
from actprune_ci.triage.entries import HERE, Entry, OnMachines
from actprune_ci.triage.order import Order, between
from actprune_ci.triage.write import append, lines
from actprune_common.errors import InputError, expected
from actprune_common.git import git
from actprune_common.printable import visible
from actprune_common.strict_yaml import check

Selected = tuple[Figure, str, tuple[str, str]]
"""A figure, its machine, and the commits that its change is between: both empty without one."""


def command(
    action: Annotated[str, typer.Argument(help="expected, ignore or baseline.")],
    benchmark: Annotated[str, typer.Option(help="A pattern, as in the policy.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    history: Annotated[Path | None, typer.Option(help="history.json.")] = None,
    gate: Annotated[Path | None, typer.Option(help="gate.json.")] = None,
    params: Annotated[
        list[str] | None, typer.Option("--param", help="NAME=PATTERN; may be given again.")
    ] = None,
    metric: Annotated[str, typer.Option(help="A pattern.")] = "*",
    machine: Annotated[str, typer.Option(help="A pattern.")] = "*",
    change: Annotated[
        str, typer.Option(help="The commit, or GOOD..BAD; else that of the selected changes.")
    ] = "",
    since: Annotated[str, typer.Option(help="For baseline, ignore: from this commit on.")] = "",
    until: Annotated[str, typer.Option(help="For ignore: a day or a commit.")] = "",
    author: Annotated[str, typer.Option(help="Else git's user.name and user.email.")] = "",
    repo: Ordered = Path(),
    file: Annotated[Path, typer.Option(help="The triage; made where it is missing.")] = HERE,
) -> None:
    """Write into ci/triage.yml that a change is expected, ignored for a time, or a new baseline.

    Refuses what selects nothing in the given gate.json or history.json. Review it as any change.
    Example: actprune-ci ack expected --history history.json --benchmark '*time_compress'
    --reason 'exact norms cost a fifth'.
    """
    if (gate is None) == (history is None):
        raise InputError("ack: expected either --gate or --history")
    found, order = of_gate(gate, repo) if gate else of_history(history or Path(), repo)
    patterns = dict(each.partition("=")[::2] for each in params or [])
    given: dict[str, Any] = {"benchmark": benchmark, "metric": metric, "machine": machine}
    chosen = check(OnMachines, {**given, "params": patterns}, "ack")
    selected = [each for each in found if chosen.about(each[0].key, each[1])]
    if action in ("expected", "ignore"):
        selected = [each for each in selected if each[2][1]]
        change = change or ("" if since else the_range(selected, benchmark))
    given |= {"params": patterns, "change": full(repo, change), "since": full(repo, since)}
    given |= {"until": until if "-" in until else full(repo, until), "reason": reason}
    given |= {"author": author or who(repo), "date": datetime.now(timezone.utc).date()}
    given = {"action": action, **{name: value for name, value in given.items() if value}}
    entry = check(Entry, given, "ack")
    if not fits(entry, selected, order):
        raise InputError(f"ack: {entry.name}: selects nothing in {gate or history}")
    if entry.expired(order):
        raise InputError(f"--until: expected what is still to come, got {entry.until}")
    append(file, entry)
    echo("\n".join(map(visible, lines(entry).splitlines())))
    tell(f"written to {file}: have it reviewed")


def fits(entry: Entry, selected: list[Selected], order: Order) -> bool:
    """Whether an entry is about any of the selected figures and their changes."""
    if entry.action == "baseline":
        return bool(selected) and order.place(entry.since) is not None
    return any(entry.covers(good, bad, order) for _, _, (good, bad) in selected)


def of_history(path: Path, repo: Path) -> tuple[list[Selected], Order]:
    """Every figure of a history, and every change, with the order of the branch."""
    made = read(path, HistoryJson)
    try:
        order = Order(branch_commits(repo, made.branch))
    except InputError:
        order = Order(made.commits)
    found: list[Selected] = [(figure, figure.machine, ("", "")) for figure in made.figures]
    for each in made.findings:
        good, _, bad = each.range.partition("..")
        found.append((each, each.machine, (good, bad)))
    return found, order


def of_gate(path: Path, repo: Path) -> tuple[list[Selected], Order]:
    """The figures that changed for the worse between a gate's commits, and their order."""
    made = read(path, GateJson)
    sides = made.base, made.head
    found: list[Selected] = [
        (each, made.machine, sides) for each in made.findings if each.bad and not each.bound
    ]
    return found, between(repo, made.base, made.head)


def the_range(selected: list[Selected], benchmark: str) -> str:
    """The one range of the selected changes. Raises InputError where there are several, or none."""
    ranges = list(dict.fromkeys(where for _, _, where in selected))
    if len(ranges) != 1:
        listed = ", ".join(f"{good[:10]}..{bad[:10]}" for good, bad in ranges) or "none"
        raise expected(
            "--change", f"a commit or GOOD..BAD: {benchmark!r} fits {len(ranges)}", listed
        )
    return "..".join(ranges[0])


def full(repo: Path, change: str) -> str:
    """A commit, or a range of two, by full hashes."""
    return "..".join(resolve(repo, each) for each in change.split("..")) if change else ""


def who(repo: Path) -> str:
    """The one who commits here. Raises InputError where git does not know."""
    try:
        return f"{git(repo, 'config', 'user.name')} <{git(repo, 'config', 'user.email')}>"
    except InputError:
        raise InputError("--author: git's user.name and user.email are not set") from None
