"""A cause as people read it: what is worse, since when, by which commit, and how to look at it."""

from collections.abc import Sequence
from dataclasses import dataclass

from actprune_ci.publish.causes import Cause, Told
from actprune_ci.publish.commits import CommitFacts, Repository
from actprune_ci.publish.reports.formatting import line, number, pattern

MOST_COMMITS = 10
MOST_EFFECTS = 3
WORDS = {"vanished": ("vanished",) * 2, "failed": ("fails", "fail")}
WORDS |= {"over budget": ("is over its budget", "are over their budgets")}


@dataclass(frozen=True)
class Story:
    """A cause, and what git knows of its commits."""

    cause: Cause
    commits: Sequence[CommitFacts]
    """Those that it can have come with, the newest first; empty where the clone lacks them."""
    last: CommitFacts | None
    """The first commit that surely is worse."""
    compare: str
    """Where its commits are shown together; empty without a forge."""

    @property
    def culprit(self) -> CommitFacts | None:
        """The one commit that it came with; None where it is one of several."""
        return self.commits[0] if len(self.commits) == 1 and self.cause.kind == "step" else None

    @property
    def day(self) -> str:
        """Since when; empty where that is not known."""
        dated = self.culprit or self.last
        return dated.day if dated else ""

    @property
    def what(self) -> str:
        """How many figures are worse."""
        outcomes = {figure.outcome for figure in self.cause.figures}
        one, many = WORDS.get(outcomes.pop(), WORSE) if len(outcomes) == 1 else WORSE
        count = len(self.cause.figures)
        return f"1 figure {one}" if count == 1 else f"{count} figures {many}"

    @property
    def who(self) -> str:
        """By which commit, without its link."""
        if self.culprit:
            found = self.culprit
            return f"by {found.hash[:10]} “{found.subject}” ({found.author})"
        ends = f"{self.cause.good[:10]}..{self.cause.bad[:10]}"
        if not self.commits:
            return f"by a commit of {ends}"
        if self.cause.kind == "creep":
            return f"little by little over the {len(self.commits)} commits {ends}"
        return f"by one of the {len(self.commits)} commits {ends}"

    @property
    def effects(self) -> str:
        """The largest changes."""
        shown = self.cause.figures[:MOST_EFFECTS]
        more = len(self.cause.figures) - len(shown)
        listed = ", ".join(f"{short(figure)} {figure.size}" for figure in shown)
        return f"{listed} and {more} more" if more else listed

    @property
    def headline(self) -> str:
        """What is worse, since when, by which commit and by how much."""
        since = f" since {self.day}" if self.day else ""
        return f"{self.what}{since}, {self.who}: {self.effects}"

    @property
    def repeat(self) -> str:
        """The command that measures the figures again."""
        names = dict.fromkeys(figure.entry.benchmark for figure in self.cause.figures)
        words = ("--benchmarks", pattern(list(names)))
        return line("ab", self.cause.good, self.cause.bad, *words)

    @property
    def bisect(self) -> str:
        """The command that finds the commit, by the worst figure; nothing where it is known."""
        if self.culprit:
            return ""
        figure = pattern([self.cause.figures[0].entry.name])
        return line("bisect", self.cause.good, self.cause.bad, "--benchmark", f"{figure}$")


WORSE = ("is worse", "are worse")


def told(cause: Cause, repository: Repository) -> Story:
    """A cause with what git knows of it."""
    if cause.suspects:
        commits = [found for each in cause.suspects if (found := repository.one(each))]
    else:
        commits = repository.between(cause.good, cause.bad)
    last = repository.one(cause.bad)
    return Story(cause, commits, last, repository.compare(cause.good, cause.bad))


def short(figure: Told) -> str:
    """A figure by the last part of its name, with its metric where that is no time."""
    entry = figure.entry
    name = entry.benchmark.rpartition(".")[2] or entry.benchmark
    given = ", ".join(list(entry.params.values())[:2])
    inside = f"({given[:40]})" if given else ""
    return f"{name}{inside}" + (f" {entry.metric}" if entry.metric not in ("time", name) else "")


def levels(figure: Told) -> str:
    """A figure before and after, with its unit."""
    if figure.levels is None:
        return ""
    before, after = (number(level, figure.entry.unit) for level in figure.levels)
    unit = before.partition(" ")[2]
    return f"{before.removesuffix(f' {unit}') if after.endswith(f' {unit}') else before} → {after}"
