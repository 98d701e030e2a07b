"""What git knows of the commits that a change can have come with, and where to look at them."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from actprune_ci.model.documents import GateJson, HistoryJson
from actprune_ci.publish.reports.formatting import COMMIT
from actprune_ci.triage.order import Order
from actprune_common.errors import InputError
from actprune_common.git import answer

FIELDS = "%H%x00%an%x00%as%x00%aI%x00%s"
ORDER = ("--first-parent", "--reverse", "--end-of-options")
REMOTE = re.compile(
    r"(?:(?:https?|ssh|git)://(?:[^@/]*@)?|(?:[\w.-]+@)(?=[\w.-]+:(?!/)))"
    r"(?P<host>[\w.-]+)(?::\d+(?=/))?[:/](?P<path>[\w./~-]+?)(?:\.git)?/?"
)
FORGES = {"gitlab": ("-/commit", "-/compare"), "bitbucket": ("commits", "branches/compare")}
"""By a part of the host's name: the folders of commits and comparisons; else as GitHub has them."""
KNOWN = ("github", "gitlab", "bitbucket", "codeberg", "gitea", "forgejo")


@dataclass(frozen=True)
class CommitFacts:
    """A commit, for people."""

    hash: str
    author: str
    day: str
    date: str
    """ISO 8601, of the author."""
    subject: str
    link: str = ""
    """On its forge; empty where there is none."""


@dataclass(frozen=True)
class Repository:
    """A clone that is asked about commits; what it does not know is not told."""

    path: Path

    @property
    def address(self) -> str:
        """The address of its `origin` on a forge, without credentials; empty without one."""
        return forge(_said(self.path, "config", "--get", "remote.origin.url"))

    def facts(self, *words: str, most: int = 0) -> list[CommitFacts]:
        """The commits that `git log` lists for these words, the newest first."""
        limit = (f"-{most}",) if most else ()
        shown = _said(self.path, "log", "-z", f"--format={FIELDS}", *limit, *words, "--")
        parts = shown.split("\0") if shown else []
        rows = (parts[i : i + 5] for i in range(0, len(parts) - 4, 5))
        address = self.address
        return [
            CommitFacts(commit, author, day, date, subject, link(address, commit))
            for commit, author, day, date, subject in rows
        ]

    def one(self, commit: str) -> CommitFacts | None:
        """One commit; None where the clone lacks it."""
        return next(iter(self.facts("--no-walk", "--end-of-options", commit)), None)

    def between(self, good: str, bad: str) -> list[CommitFacts]:
        """The commits after `good` up to `bad` by first parents, the newest first."""
        if not (good and bad):  # git would take HEAD
            return []
        return self.facts("--first-parent", "--end-of-options", f"{good}..{bad}")

    def compare(self, good: str, bad: str) -> str:
        """Where a range is shown; empty without a forge."""
        address = self.address
        if not (address and COMMIT.fullmatch(good) and COMMIT.fullmatch(bad)):
            return ""
        return f"{address}/{_folders(address)[1]}/{good}...{bad}"

    def order(self, gate: GateJson | None, history: HistoryJson | None) -> Order:
        """The order of the commits that documents speak of, as far as it is known."""
        tip = history.branch if history and history.branch else gate.head if gate else ""
        listed = _said(self.path, "rev-list", *ORDER, tip, "--").split()
        if not listed and history:
            listed = history.commits
        ends = [gate.base, gate.head] if gate and gate.head not in listed else []
        return Order(list(dict.fromkeys([*listed, *ends])))


def forge(remote: str) -> str:
    """The address of a repository's pages, from that of a remote; empty where it has none known."""
    found = REMOTE.fullmatch(remote.strip())
    if not found or not any(name in found["host"] for name in KNOWN):
        return ""
    return f"https://{found['host']}/{found['path'].strip('/')}"


def link(address: str, commit: str) -> str:
    """Where a commit is shown; empty without a forge."""
    return f"{address}/{_folders(address)[0]}/{commit}" if address else ""


def _folders(address: str) -> tuple[str, str]:
    return next((f for name, f in FORGES.items() if name in address), ("commit", "compare"))


@lru_cache(maxsize=4096)
def _said(repo: Path, *words: str) -> str:
    """What git answers; nothing where it refuses."""
    command = ("git", "-C", str(repo), *words)
    try:
        return answer(command, f"git {words[0]}", encoding="utf-8", errors="replace").strip("\n\0")
    except InputError:
        return ""
