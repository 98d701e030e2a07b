"""Bisection: the commit that changed a figure, by A/B runs against the good one.

The search (`next_probe`, `suspects`) knows nothing of measuring: it takes answers. An answer is bad
where a commit shows more than half of the change from good to bad, so that noise must move a figure
by half the regression to mislead it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from random import Random
from statistics import median
from typing import Literal

from actprune_ci.judge import statistics
from actprune_ci.measure import sequential as stopping
from actprune_ci.measure import serving
from actprune_ci.measure.checkouts import BuildError, Workshop, git
from actprune_ci.measure.pairing import Bench, Figure, Limits, rounds
from actprune_ci.model.runs import Key
from actprune_common.errors import InputError

ERROR = 0.01
"""The chance that one answer is wrong."""
Answer = Literal["good", "bad", "skip"]


class OpenError(InputError):
    """There is no telling: the figure does not change, or too much noise, or nothing measurable."""


@dataclass(frozen=True)
class Step:
    """One comparison with the good commit."""

    commit: str
    answer: Answer
    detail: str
    """The change and its pairs, or why it was skipped."""


@dataclass(frozen=True)
class Found:
    """The outcome: one suspect, or several where those between could not be measured."""

    key: Key
    good: str
    bad: str
    change: float
    """From good to bad, as a log-ratio; a difference where figures are not above 0."""
    suspects: tuple[str, ...]
    steps: tuple[Step, ...]
    confirmed: str
    """The change from the commit before to the one suspect; empty where there are several."""


@dataclass(frozen=True)
class Question:
    """One figure, and how it is measured."""

    shop: Workshop
    suite: Path
    key: Key
    described: tuple[serving.Answer, tuple[str, ...]]
    limits: Limits
    repeats: int = 3
    random: Random = field(default_factory=lambda: Random(0))

    def measured(self, base: str, head: str, threshold: float | None = None) -> Figure:
        """The figure in pairs, until it is clear on which side of a threshold the change lies.

        Without a threshold until the A/B rule has its answer. Raises BuildError and OpenError.
        """
        bench = Bench(self.shop.side(base), self.shop.side(head), self.suite, self.shop.python)
        figure = Figure(self.key, *self.described)

        def stop(d: statistics.Array, look: int, _: int) -> bool:
            return stopping.beside(d, threshold or 0.0, look, ERROR) != 0

        rule = None if threshold is None else stop
        rounds(bench, [figure], self.limits, self.random, rule)
        if figure.status != "ok" or not figure.base:
            raise OpenError(figure.pairs().detail)
        return figure


def next_probe(answers: Mapping[int, Answer], count: int) -> int | None:
    """Which of the commits 0 to count - 1 to ask next; None where no answer can narrow it further.

    The last is known to be bad, the one before the first to be good. The one nearest to the middle
    of what is open that was not asked.
    """
    low, high = _bounds(answers, count)
    still = [i for i in range(low + 1, high) if i not in answers]
    return min(still, key=lambda i: abs(2 * i - low - high), default=None)


def suspects(answers: Mapping[int, Answer], count: int) -> range:
    """The commits of which one is the first bad: after the last good, up to the first bad."""
    low, high = _bounds(answers, count)
    return range(low + 1, high + 1)


def _bounds(answers: Mapping[int, Answer], count: int) -> tuple[int, int]:
    low = max((i for i, answer in answers.items() if answer == "good"), default=-1)
    high = min((i for i, answer in answers.items() if answer == "bad"), default=count - 1)
    return low, high


def search(count: int, ask: Callable[[int], Answer]) -> range:
    """The suspects among `count` commits after asking about as few as it takes."""
    answers: dict[int, Answer] = {}
    while (probe := next_probe(answers, count)) is not None:
        answers[probe] = ask(probe)
    return suspects(answers, count)


def bisect(
    question: Question, good: str, bad: str, progress: Callable[[Step], None] = lambda _: None
) -> Found:
    """Find the commit after `good` up to `bad` (full hashes) that changed the figure.

    Raises OpenError where good and bad do not differ, BuildError where one of them does not build.
    """
    commits = between(question.shop.repo, good, bad)
    whole = question.measured(good, bad)
    total = change(whole)
    if total == 0 or not (whole.exact or _differs(whole, question.limits)):
        raise OpenError(f"{question.key}: no change from good to bad: {told(whole)}")
    steps: list[Step] = []

    def ask(i: int) -> Answer:
        step = answered(question, good, commits[i], total)
        if i < len(commits) - 1:
            question.shop.drop(commits[i])
        steps.append(step)
        progress(step)
        return step.answer

    left = [commits[i] for i in search(len(commits), ask)]
    confirmed = ""
    if len(left) == 1:
        before = [good, *commits][commits.index(left[0])]
        step = answered(question, before, left[0], total)
        if step.answer != "bad":
            raise OpenError(f"{left[0]}: not confirmed against the commit before: {step.detail}")
        confirmed = step.detail
    return Found(question.key, good, bad, total, tuple(left), tuple(steps), confirmed)


def answered(question: Question, good: str, commit: str, total: float) -> Step:
    """Whether a commit shows more than half of the total change; asked again where in doubt."""
    detail = ""
    for _ in range(question.repeats):
        try:
            sign = 1 if total > 0 else -1
            figure = question.measured(good, commit, total / 2)
        except (BuildError, OpenError) as problem:
            return Step(commit, "skip", str(problem))
        side = sign * beyond(figure, total / 2, question.limits)
        detail = told(figure)
        if side:
            return Step(commit, "bad" if side > 0 else "good", detail)
    return Step(commit, "skip", f"inconclusive {question.repeats} times: {detail}")


def change(figure: Figure) -> float:
    """Median log-ratio of the pairs; the difference of medians where figures are not above 0."""
    if min(*figure.base, *figure.head) > 0:
        ratios = (log(h / b) for b, h in zip(figure.base, figure.head, strict=True))
        return median(ratios)
    return median(figure.head) - median(figure.base)


def beyond(figure: Figure, threshold: float, limits: Limits) -> int:
    """On which side of a threshold the change lies: -1, 1, or 0 where in doubt."""
    if figure.exact:
        return 1 if change(figure) > threshold else -1
    if min(*figure.base, *figure.head) <= 0:
        return 0
    d = statistics.log_ratios(figure.base, figure.head)
    return stopping.beside(d, threshold, _look(len(d), limits), ERROR)


def told(figure: Figure) -> str:
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


def _differs(figure: Figure, limits: Limits) -> bool:
    return beyond(figure, 0.0, limits) != 0


def _look(pairs: int, limits: Limits) -> int:
    looks: Sequence[int] = stopping.looks(limits.fewest, limits.most)
    return max(1, sum(n <= pairs for n in looks))
