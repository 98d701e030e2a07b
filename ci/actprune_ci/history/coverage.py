"""What a history looks at, and what it does not: commits, machines, series that begin or end.

A commit that a clone does not have is not analysed, and what is not looked at is not gone. A
verdict that would rest on such a hole is refused.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from actprune_ci.store.query import over
from actprune_common.errors import InputError
from actprune_common.git import answer, git

MOST_UNKNOWN = 0.1
"""Of the measured commits, the share that a clone may lack."""
SILENT = 5
"""Measured commits without a machine, after which it is said to be silent."""
FEW, MANY = 3, 5
"""Hosted runners: so many machines, or more, with so few measured commits each, or fewer."""
NAMED = 5

_MEASURED = """
SELECT "commit", bool_and(source = 'ab'), max(date) FROM measurements
WHERE NOT dirty AND "commit" <> '' GROUP BY "commit" ORDER BY max(date)
"""
_MACHINES = """
SELECT machine, min(position), max(position), count(DISTINCT position)
FROM measurements JOIN (SELECT unnest($commits::VARCHAR[]) AS "commit",
  generate_subscripts($commits, 1) - 1 AS position) USING ("commit")
WHERE NOT dirty AND source <> 'ab' GROUP BY machine ORDER BY machine
"""


class GapError(InputError):
    """A verdict would rest on commits that the clone does not have."""


@dataclass(frozen=True)
class MachineSpan:
    """Where among the branch's measured commits a machine was at work."""

    name: str
    first: int
    last: int
    """Positions among the branch's commits, from 0."""
    commits: int


@dataclass(frozen=True)
class Coverage:
    """What of a store's measured commits a history looks at."""

    known: int
    """Measured commits of the branch."""
    unknown: tuple[str, ...]
    """Measured commits that the clone does not have, the newest last."""
    elsewhere: tuple[str, ...]
    """Measured commits that it has, on other branches."""
    shallow: bool
    newest_unknown: bool
    """Whether the newest measured commit is one that the clone does not have."""
    machines: tuple[MachineSpan, ...]
    commits: tuple[str, ...]
    """Of the branch, oldest first."""

    @property
    def gap(self) -> str:
        """Why no verdict can rest on this; nothing where one can."""
        if not self.unknown:
            return ""
        many = len(self.unknown) > MOST_UNKNOWN * (len(self.unknown) + self.known)
        if not (self.shallow or self.newest_unknown or many):
            return ""
        total = len(self.unknown) + len(self.elsewhere) + self.known
        cure = (
            "git fetch --unshallow brings them"
            if self.shallow
            else "was the branch rebased, or is this another repository? --allow-missing goes on"
        )
        return (
            f"the store has figures of {total} commits, and this clone lacks"
            f" {len(self.unknown)} of them ({_named(self.unknown)}): {cure}"
        )

    def notes(self) -> Iterator[str]:
        """What a reader must know of what was not looked at."""
        if self.unknown:
            yield (
                f"{len(self.unknown)} measured commits are not in this clone and were not looked"
                f" at: {_named(self.unknown)}"
            )
        if self.elsewhere:
            yield f"{len(self.elsewhere)} measured commits are of other branches: left out"
        yield from self._of_machines()

    def _of_machines(self) -> Iterator[str]:
        newest = max((each.last for each in self.machines), default=0)
        rare = [each for each in self.machines if each.commits <= FEW]
        if len(rare) >= MANY:
            yield (
                f"{len(rare)} of {len(self.machines)} machines measured {FEW} commits or fewer, as"
                " hosted runners do: their times are not compared with each other"
            )
        for each in self.machines:
            since = newest - each.last
            if since < SILENT or (len(rare) >= MANY and each in rare):
                continue
            yield (
                f"machine {each.name} has been silent for {since} commits, since"
                f" {self.commits[each.last][:10]}: what it would show is not known"
                f"{self._heir(each)}"
            )

    def _heir(self, gone: MachineSpan) -> str:
        near = [
            each.name
            for each in self.machines
            if each is not gone and -SILENT <= each.first - gone.last <= SILENT
        ]
        if not near:
            return ""
        return f"; {', '.join(near)} begins there: renamed? (record --machine keeps a name)"


def coverage(store: str | Path, repo: Path, commits: Sequence[str]) -> Coverage:
    """Compare the commits that a store has figures of with a branch's `commits`, oldest first.

    Commits that A/B runs alone measured, as those of pull requests, may be missing. Raises as
    actprune_ci.store.query.sql does.
    """
    (measured, machines), _ = over(store, partial(_asked, list(commits)))
    on_branch = set(commits)
    outside = [commit for commit, _, _ in measured if commit not in on_branch]
    known = known_to(repo, outside)
    alone = {commit for commit, only_ab, _ in measured if only_ab}
    unknown = tuple(c for c in outside if c not in known and c not in alone)
    nightly = [commit for commit, only_ab, _ in measured if not only_ab]
    return Coverage(
        sum(commit in on_branch for commit, _, _ in measured),
        unknown,
        tuple(c for c in outside if c in known),
        git(repo, "rev-parse", "--is-shallow-repository").strip() == "true",
        bool(nightly and nightly[-1] in unknown),
        tuple(MachineSpan(*row) for row in machines),
        tuple(commits),
    )


def _asked(commits: list[str], connection: Any) -> tuple[list[Any], list[Any]]:
    measured = connection.execute(_MEASURED).fetchall()
    return measured, connection.execute(_MACHINES, {"commits": commits}).fetchall()


def known_to(repo: Path, commits: Iterable[str]) -> set[str]:
    """Which of the commits (full hashes) a clone has on some branch or tag.

    What a rebase left behind stays for weeks where it was made, and no other clone has it.
    """
    asked = "".join(f"{commit}\n" for commit in commits)
    if not asked:
        return set()
    words = ("git", "-C", str(repo), "cat-file", "--batch-check=%(objectname) %(objecttype)")
    lines = answer(words, "git cat-file", input=asked).splitlines()
    there = {line.split()[0] for line in lines if line.endswith(" commit")}
    asked = "".join(f"{commit}\n" for commit in sorted(there))
    without = ("git", "-C", str(repo), "rev-list", "--stdin", "--not", "--all")
    return there - set(answer(without, "git rev-list", input=asked).split() if there else ())


def _named(commits: Sequence[str]) -> str:
    names = ", ".join(commit[:10] for commit in commits[-NAMED:])
    return names if len(commits) <= NAMED else f"{names} and {len(commits) - NAMED} older ones"
