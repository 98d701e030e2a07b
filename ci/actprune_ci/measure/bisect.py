"""Bisection: the commit that changed a figure, by A/B runs against the good one.

The search (`next_probe`, `suspects`) knows nothing of measuring: it takes answers. An answer is bad
where a commit shows more than half of the change from good to bad, so that noise must move a figure
by half the change to mislead it. Which way is better does not matter. One interval
(`compared.Compared`) both ends the pairs and gives the answer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import copysign
from pathlib import Path
from random import Random
from typing import Literal

from actprune_ci.measure.checkouts import BuildError, Checkouts
from actprune_ci.measure.compared import Compared, scale_of
from actprune_ci.measure.pairing import Limits, PairedFigure, rounds
from actprune_ci.measure.serving import Server
from actprune_ci.model.metrics import Scale
from actprune_ci.model.runs import Key
from actprune_common.errors import InputError
from actprune_common.git import git

ERROR = 0.01
"""The chance that one answer is wrong, over all looks and repetitions."""
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
    """From good to bad, on the scale."""
    scale: Scale
    """ratio: of logarithms; difference: in the unit, of figures that are exact or not above 0."""
    told: str
    """The same with its interval and its pairs, for people."""
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

    def measured(
        self,
        base: str,
        head: str,
        enough: Callable[[Compared], bool],
        scale: Scale | None = None,
        error: float = ERROR,
    ) -> Compared:
        """Measure a figure in pairs until they are enough, or as many as the limits allow.

        Args:
            base, head: full hashes.
            enough: asked at each look; by itself for an exact figure.
            scale: of the change; None: what the figures allow.
            error: the chance that the interval of any look misses the change.

        Raises:
            BuildError: one of the commits does not build.
            OpenError: nothing was measured, or it has no ratio.
        """
        sides = self.checkouts.side(base), self.checkouts.side(head)
        servers = [Server(side, self.suite, self.checkouts.python) for side in sides]
        figure = replace(self.figure, base=[], head=[])

        def compared() -> Compared:
            return Compared(figure, self.limits, error, scale or scale_of(figure))

        def stop(_: PairedFigure, __: int) -> bool:
            return (now := compared()).measurable and enough(now)

        rounds(servers, [figure], self.limits, self.random, stop)
        if figure.status != "ok" or not figure.base:
            raise OpenError(figure.pairs().detail)
        if not (found := compared()).measurable:
            least = min(*figure.base, *figure.head)
            raise OpenError(f"expected figures above 0, as good and bad have, got {least:g}")
        return found


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
    whole = question.measured(good, bad, lambda seen: seen.plain)
    if not whole.least:
        raise OpenError(f"{question.figure.key}: no change from good to bad is sure: {whole}")
    # what is sure bounds it: a change that luck overstates is not asked for elsewhere
    half = min(whole.change / 2, whole.least, key=abs)
    probes: list[Probe] = []

    def ask(i: int) -> Reply:
        probe = answered(question, good, commits[i], half, whole.scale)
        if i < len(commits) - 1:
            question.checkouts.drop(commits[i])
        probes.append(probe)
        progress(probe)
        return probe.answer

    left = [commits[i] for i in search(len(commits), ask)]
    confirmed = ""
    if len(left) == 1:
        before = [good, *commits][commits.index(left[0])]
        any_of_it = copysign(0.0, whole.change)  # half of the change may have come before
        probe = answered(question, before, left[0], any_of_it, whole.scale)
        if probe.answer != "bad":
            raise OpenError(f"{left[0]}: not confirmed against the commit before: {probe.detail}")
        confirmed = probe.detail
    about = question.figure.key, good, bad, whole.change, whole.scale, str(whole)
    return Bisection(*about, tuple(left), tuple(probes), confirmed)


def answered(question: Question, base: str, commit: str, threshold: float, scale: Scale) -> Probe:
    """Whether a commit's change from base lies beyond a threshold; asked again where in doubt.

    threshold: with the sign of the whole change, even where it is 0. An exact figure that is equal
    to it is good.
    """
    detail, sign = "", copysign(1, threshold)
    for _ in range(question.repeats):
        try:
            seen = question.measured(
                base,
                commit,
                lambda now: now.side(threshold) != 0,
                scale,
                ERROR / question.repeats,
            )
        except (BuildError, OpenError) as problem:
            return Probe(commit, "skip", str(problem))
        detail, side = str(seen), sign * seen.side(threshold)
        if side or seen.figure.exact:
            return Probe(commit, "bad" if side > 0 else "good", detail)
    return Probe(commit, "skip", f"inconclusive {question.repeats} times: {detail}")


def between(repo: Path, good: str, bad: str) -> list[str]:
    """The commits after good up to bad by first parents. Raises InputError where there are none."""
    words = ("rev-list", "--reverse", "--first-parent", "--ancestry-path", f"{good}..{bad}")
    commits = git(repo, *words).split()
    if not commits:
        raise InputError(f"{good[:12]} is no ancestor of {bad[:12]}, or the same commit")
    return commits
