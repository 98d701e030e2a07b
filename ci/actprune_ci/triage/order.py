"""The order of commits, and whether two ranges of them can hold the same change."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from actprune_common.errors import InputError
from actprune_common.git import git

FULL = 40
"""Digits of a hash; longer ones are whole, too."""


class Order:
    """Commits, oldest first; each may be named by the beginning of its hash."""

    def __init__(self, commits: Sequence[str]) -> None:
        self.commits = tuple(commits)
        self._places = {commit: place for place, commit in enumerate(self.commits)}
        self._short: dict[str, int | None] = {}

    def place(self, name: str) -> int | None:
        """Where a commit stands; None where it is unknown, or several begin so."""
        if name in self._places or not name or len(name) >= FULL:
            return self._places.get(name)
        if name not in self._short:
            found = [place for commit, place in self._places.items() if commit.startswith(name)]
            self._short[name] = found[0] if len(found) == 1 else None
        return self._short[name]

    def span(self, change: str) -> tuple[int, int] | None:
        """The places of the last commit before a change and the last with which it can have come.

        `change`: a commit, or GOOD..BAD. None where a commit is unknown.
        """
        good, dots, bad = change.partition("..")
        first, last = self.place(good), self.place(bad if dots else good)
        if first is None or last is None:
            return None
        return (first if dots else first - 1), last

    def overlap(self, one: str, other: str) -> bool:
        """Whether both changes can have come with the same commit."""
        spans = self.span(one), self.span(other)
        if spans[0] is None or spans[1] is None:
            return False
        return max(spans[0][0], spans[1][0]) < min(spans[0][1], spans[1][1])


def between(repo: Path, base: str, head: str) -> Order:
    """The commits up to `base`, then those up to `head`, merged ones too.

    Without those that git does not know: at least the two.
    """
    found: list[str] = []
    for words in ((base,), (head, f"^{base}")):
        order = ("--reverse", "--topo-order", "--end-of-options")
        with suppress(InputError):
            found += git(repo, "rev-list", *order, *words).split()
    return Order(list(dict.fromkeys([*(found if base in found else [base, *found]), head])))
