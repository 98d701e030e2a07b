"""Bisection: the commit that changed a figure, by A/B runs against the good one.

The search (`next_probe`, `suspects`) knows nothing of measuring: it takes answers. An answer is bad
where a commit shows more than half of the change from good to bad, so that noise must move a figure
by half the regression to mislead it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import log
from pathlib import Path
from random import Random
from statistics import median
from typing import Literal

from actprune_ci.judge import statistics
from actprune_ci.measure import sequential
from actprune_ci.measure.checkouts import BuildError, Checkouts
from actprune_ci.measure.pairing import Limits, PairedFigure, rounds
from actprune_ci.measure.serving import Server
from actprune_ci.model.runs import Key
from actprune_common.errors import InputError
from actprune_common.git import git

ERROR = 0.01
"""The chance that one answer is wrong."""
Reply = Literal["good", "bad", "skip"]


class OpenError(InputError):
    """There is no telling: the figure does not change, or too much noise, or nothing measurable."""


@dataclass(frozen=True)
class Probe:
    """One comparison with the good commit."""

    commit: str
    answer: Reply
    detail: str
    """The change and its pairs, or why it was skipped."""


@dataclass(frozen=True)
class Bisection:
    """The outcome: one suspect, or several where those between could not be measured."""

    key: Key
    good: str
    bad: str
    change: float
    """From good to bad, as a log-ratio; a difference where figures are not above 0."""
    suspects: tuple[str, ...]
    steps: tuple[Probe, ...]
    confirmed: str
    """The change from the commit before to the one suspect; empty where there are several."""


@dataclass(frozen=True)
class Question:
    """One figure, and how it is measured."""

    checkouts: Checkouts
    suite: Path
    figure: PairedFigure
    """Not measured yet."""
    limits: Limits
    repeats: int = 3
    random: Random = field(default_factory=lambda: Random(0))

    def measured(self, base: str, head: str, threshold: float | None = None) -> PairedFigure:
        """The figure in pairs, until it is clear on which side of a threshold the change lies.

        Without a threshold until the A/B rule has its answer. Raises BuildError and OpenError.
        """
        sides = self.checkouts.side(base), self.checkouts.side(head)
        servers = [Server(side, self.suite, self.checkouts.python) for side in sides]
        figure = replace(self.figure, base=[], head=[])

        def stop(d: statistics.Array, look: int, _: int) -> bool:
            return sequential.beside(d, threshold or 0.0, look, ERROR) != 0

        rule = None if threshold is None else stop
        rounds(servers, [figure], self.limits, self.random, rule)
        if figure.status != "ok" or not figure.base:
            raise OpenError(figure.pairs().detail)
        return figure


def next_probe(answers: Mapping[int, Reply], count: int) -> int | None:
    """Which of the commits 0 to count - 1 to ask next; None where no answer can narrow it further.

    The last is known to be bad, the one before the first to be good. The one nearest to the middle
    of what is open that was not asked.
    """
    left = suspects(answers, count)
    still = [i for i in left[:-1] if i not in answers]
    return min(still, key=lambda i: abs(2 * i - left[0] - left[-1] + 1), default=None)


def suspects(answers: Mapping[int, Reply], count: int) -> range:
    """The commits of which one is the first bad: after the last good, up to the first bad."""
    good = max((i for i, answer in answers.items() if answer == "good"), default=-1)
    bad = min((i for i, answer in answers.items() if answer == "bad"), default=count - 1)
    return range(good + 1, bad + 1)


def search(count: int, ask: Callable[[int], Reply]) -> range:
    """The suspects among `count` commits after asking about as few as it takes."""
    answers: dict[int, Reply] = {}
    while (probe := next_probe(answers, count)) is not None:
        answers[probe] = ask(probe)
    return suspects(answers, count)


def bisect(
    question: Question, good: str, bad: str, progress: Callable[[Probe], None] = lambda _: None
) -> Bisection:
    """Find the commit after `good` up to `bad` (full hashes) that changed the figure.

    Raises OpenError where good and bad do not differ, BuildError where one of them does not build.
    """
    commits = between(question.checkouts.repo, good, bad)
    whole = question.measured(good, bad)
    total = change(whole)
    if total == 0 or not (whole.exact or beyond(whole, 0.0, question.limits)):
        raise OpenError(f"{question.figure.key}: no change from good to bad: {told(whole)}")
    probes: list[Probe] = []

    def ask(i: int) -> Reply:
        probe = answered(question, good, commits[i], total)
        if i < len(commits) - 1:
            question.checkouts.drop(commits[i])
        probes.append(probe)
        progress(probe)
        return probe.answer

    left = [commits[i] for i in search(len(commits), ask)]
    confirmed = ""
    if len(left) == 1:
        before = [good, *commits][commits.index(left[0])]
        probe = answered(question, before, left[0], total)
        if probe.answer != "bad":
            raise OpenError(f"{left[0]}: not confirmed against the commit before: {probe.detail}")
        confirmed = probe.detail
    return Bisection(question.figure.key, good, bad, total, tuple(left), tuple(probes), confirmed)


def answered(question: Question, good: str, commit: str, total: float) -> Probe:
    """Whether a commit shows more than half of the total change; asked again where in doubt."""
    detail, sign = "", 1 if total > 0 else -1
    for _ in range(question.repeats):
        try:
            figure = question.measured(good, commit, total / 2)
        except (BuildError, OpenError) as problem:
            return Probe(commit, "skip", str(problem))
        detail = told(figure)
        if side := sign * beyond(figure, total / 2, question.limits):
            return Probe(commit, "bad" if side > 0 else "good", detail)
    return Probe(commit, "skip", f"inconclusive {question.repeats} times: {detail}")


def change(figure: PairedFigure) -> float:
    """Median log-ratio of the pairs; the difference of medians where figures are not above 0."""
    if min(*figure.base, *figure.head) > 0:
        return median(log(h / b) for b, h in zip(figure.base, figure.head, strict=True))
    return median(figure.head) - median(figure.base)


def beyond(figure: PairedFigure, threshold: float, limits: Limits) -> int:
    """On which side of a threshold the change lies: -1, 1, or 0 where in doubt."""
    if figure.exact:
        return 1 if change(figure) > threshold else -1
    if min(*figure.base, *figure.head) <= 0:
        return 0
    d = statistics.log_ratios(figure.base, figure.head)
    look = sum(n <= len(d) for n in sequential.looks(limits.fewest, limits.most))
    return sequential.beside(d, threshold, max(1, look), ERROR)


def told(figure: PairedFigure) -> str:
    """The change and its pairs."""
    unit = f"{change(figure):+.2%}" if min(*figure.base, *figure.head) > 0 else "a difference"
    return f"{unit} in {len(figure.base)} pairs"


def between(repo: Path, good: str, bad: str) -> list[str]:
    """The commits after good up to bad by first parents. Raises InputError where there are none."""
    words = ("rev-list", "--reverse", "--first-parent", "--ancestry-path", f"{good}..{bad}")
    commits = git(repo, *words).split()
    if not commits:
        raise InputError(f"{good[:12]} is no ancestor of {bad[:12]}, or the same commit")
    return commits
