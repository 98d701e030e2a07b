"""Figures measured in pairs, round by round, until their answers are clear."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from actprune_ci import statistics, stopping
from actprune_ci.model import Key, Pairs, Status
from actprune_ci.serving import Answer, Server
from actprune_ci.worktrees import Side

EXACT_ROUNDS = 2
"""After so many a tracked figure that never varied is taken to be deterministic."""
SECONDS_EACH = 180.0
"""The budget of a figure, where none is given."""
FALSE_DISCOVERIES = 0.01
"""The gate's false discovery rate: a change is clear when it stands within the whole family."""
Stop = Callable[[statistics.Array, int, int], bool]
"""Whether log-ratios (pairs,) are enough, at look j, of so many figures that vary."""


@dataclass(frozen=True)
class Limits:
    """How much is measured."""

    budget: float | None = None
    """Seconds; 180 for each figure where it is not given."""
    fewest: int = 8
    most: int = 60
    """Pairs of a figure that varies."""
    smallest: float = 0.02
    """The smallest relative effect that matters."""

    def clear(self, d: statistics.Array, look: int, family: int) -> bool:
        """The rule of an A/B run: the gate will have its answer."""
        return stopping.settled(d, self.smallest, FALSE_DISCOVERIES / family, look)


@dataclass
class Figure:
    """A figure while it is measured."""

    key: Key
    benchmark: Answer
    params: tuple[str, ...]
    base: list[float] = field(default_factory=list)
    head: list[float] = field(default_factory=list)
    plan: Answer | None = None
    status: Status = "ok"
    detail: str = ""
    closed: bool = False

    @property
    def exact(self) -> bool:
        """A tracked figure that has not varied so far."""
        alike = len(set(self.base)) < 2 and len(set(self.head)) < 2
        return self.benchmark["kind"] == "track" and alike

    def pairs(self) -> Pairs:
        """What was measured; a figure that never was is skipped."""
        if self.status == "ok" and not self.base:
            return Pairs(self.key, status="skipped", base=(), head=(), detail="the time was over")
        return Pairs(self.key, tuple(self.base), tuple(self.head), self.status, self.detail)


@dataclass(frozen=True)
class Bench:
    """Where figures are measured: two sides under one suite."""

    base: Side
    head: Side
    suite: Path
    python: str

    def servers(self) -> tuple[Server, Server]:
        """Fresh ones, not yet started."""
        return (
            Server(self.base, self.suite, self.python),
            Server(self.head, self.suite, self.python),
        )


def rounds(
    bench: Bench,
    figures: Sequence[Figure],
    limits: Limits,
    random: Random,
    stop: Stop | None = None,
    after: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Measure until all figures are closed or the budget is used up; returns a note on that.

    `after` is called after each round, with where things stand.
    """
    began = time.monotonic()
    budget = SECONDS_EACH * len(figures) if limits.budget is None else limits.budget
    base, head = bench.servers()
    with base, head:
        for number in range(1, limits.most + 1):
            one_round(base, head, figures, random, began + budget)
            close(figures, limits, stop or limits.clear)
            still = sum(not figure.closed for figure in figures)
            spent = time.monotonic() - began
            after(f"round {number}: {still} of {len(figures)} still open, {spent:.0f} s")
            if still and spent >= budget:
                return [f"budget of {budget:g} s used up: {still} of {len(figures)} still open"]
            if not still:
                break
            if number == 1 or base.worn or head.worn:
                base.close()
                head.close()
    return []


def one_round(
    base: Server, head: Server, figures: Iterable[Figure], random: Random, ends: float
) -> None:
    """A pair of each open figure, in random order, while there is time (`ends`, monotonic)."""
    still = [figure for figure in figures if not figure.closed]
    random.shuffle(still)
    for figure in still:
        if time.monotonic() < ends:
            pair(figure, base, head, random)


def pair(figure: Figure, base: Server, head: Server, random: Random) -> None:
    """Measure a figure once on each side, in random order; a failure or a skip closes it."""
    answers: dict[int, Answer] = {}
    servers = (base, head)
    if figure.plan is None and figure.benchmark["kind"] in ("time", "timeraw"):
        first = base.run(figure.benchmark, figure.params, None)  # what warms up is thrown away
        if first["status"] == "ok":
            figure.plan = first["plan"]
        else:
            answers[0] = first
    for side in random.sample((0, 1), 2):
        if side not in answers:
            answers[side] = servers[side].run(figure.benchmark, figure.params, figure.plan)
    record(figure, answers[0], answers[1])


def record(figure: Figure, base: Answer, head: Answer) -> None:
    """Take a pair of answers into a figure."""
    states = {base["status"], head["status"]}
    if states == {"ok"}:
        figure.base.append(float(base["value"]))
        figure.head.append(float(head["value"]))
        return
    figure.closed = True
    failed = [
        f"{name}: {answer['detail']}"
        for name, answer in (("base", base), ("head", head))
        if answer["status"] == "failed"
    ]
    if failed:
        figure.status, figure.detail = "failed", "; ".join(failed)
        if base["status"] == "failed":
            figure.base.clear()
        if head["status"] == "failed":
            figure.head.clear()
        return
    figure.status = "skipped"
    figure.base.clear()
    figure.head.clear()
    if base["status"] == "ok":
        figure.detail = "vanished"
    elif head["status"] == "ok":
        figure.detail = "new"
    else:
        figure.detail = head["detail"] or base["detail"] or "skipped on both sides"


def close(figures: Iterable[Figure], limits: Limits, stop: Stop) -> None:
    """Close each figure whose answer is clear."""
    found = [figure for figure in figures if figure.status == "ok"]
    family = max(sum(not figure.exact for figure in found), 1)
    looks = stopping.looks(limits.fewest, limits.most)
    for figure in found:
        n = len(figure.base)
        if figure.exact:
            figure.closed = n >= (1 if figure.benchmark["deterministic"] else EXACT_ROUNDS)
        elif not figure.closed and n in looks:
            positive = min(*figure.base, *figure.head) > 0
            figure.closed = n == limits.most or (
                positive
                and stop(
                    statistics.log_ratios(figure.base, figure.head), looks.index(n) + 1, family
                )
            )
