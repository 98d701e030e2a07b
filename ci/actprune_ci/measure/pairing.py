"""Figures measured in pairs, round by round, until their answers are clear."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from random import Random
from statistics import median

from actprune_ci.judge import statistics
from actprune_ci.measure import sequential
from actprune_ci.measure.serving import Answer, Server
from actprune_ci.model.metrics import RATE, TIMES
from actprune_ci.model.runs import NEW, VANISHED, Key, Note, Pairs, Status

EXACT_ROUNDS = 2
"""After so many a tracked figure that never varied is taken to be deterministic."""
SECONDS_EACH = 180.0
"""The budget of a figure, where none is given."""
RENDEZVOUS = 60.0
"""Seconds that a side waits for the other one before both start."""
FALSE_DISCOVERIES = 0.01
"""The gate's false discovery rate: a change is clear when it stands within the whole family."""


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

    def look(self, pairs: int) -> int:
        """Which look it is at so many pairs, from 1; between two, the next one is had early."""
        return 1 + sum(n < pairs for n in sequential.looks(self.fewest, self.most))

    def clear(self, figure: "PairedFigure", family: int) -> bool:
        """Whether the gate will have its answer: the rule of an A/B run of `family` figures."""
        if min(*figure.base, *figure.head) <= 0:
            return False
        d, look = statistics.log_ratios(figure.base, figure.head), self.look(len(figure.base))
        return sequential.settled(d, self.smallest, FALSE_DISCOVERIES / family, look)


@dataclass
class PairedFigure:
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
    discarded: int = 0
    """Samples that a GPU which was slowed down had spoilt."""

    @property
    def clocked(self) -> bool:
        """Whether the figure depends on clocks: times and rates."""
        kind, unit = self.benchmark["kind"], self.key.unit
        return kind in ("time", "timeraw") or unit in TIMES or bool(RATE.fullmatch(unit))

    @property
    def exact(self) -> bool:
        """A tracked figure that has not varied so far."""
        alike = len(set(self.base)) < 2 and len(set(self.head)) < 2
        return self.benchmark["kind"] == "track" and alike

    def pairs(self) -> Pairs:
        """What was measured; a figure that never was is skipped."""
        if self.status == "ok" and not self.base:
            spoilt = "a GPU was slowed down during every sample"
            detail = spoilt if self.discarded else "the time was over"
            return Pairs(self.key, status="skipped", detail=detail)
        return Pairs(self.key, tuple(self.base), tuple(self.head), self.status, self.detail)


Stop = Callable[[PairedFigure, int], bool]
"""Whether the pairs of a figure are enough, at a look, among so many figures that vary."""


def rounds(
    servers: Sequence[Server],
    figures: Sequence[PairedFigure],
    limits: Limits,
    random: Random,
    stop: Stop | None = None,
    after: Callable[[str], None] = lambda _: None,
) -> list[Note]:
    """Measure until all figures are closed or the budget is used up; returns a note on that.

    `servers` are those of base and head. `after` is called after each round, with where things
    stand.
    """
    began = time.monotonic()
    budget = SECONDS_EACH * len(figures) if limits.budget is None else limits.budget
    with closing(servers[0]) as base, closing(servers[1]) as head:
        for number in range(1, 2 * limits.most + 1):  # what was spoilt is measured again
            still = [figure for figure in figures if not figure.closed]
            random.shuffle(still)
            for figure in still:
                if time.monotonic() < began + budget:
                    pair(figure, base, head, random)
            close(figures, limits, stop or limits.clear)
            left = sum(not figure.closed for figure in figures)
            spent = time.monotonic() - began
            after(f"round {number}: {left} of {len(figures)} still open, {spent:.0f} s")
            if left and spent >= budget:
                text = f"budget of {budget:g} s used up: {left} of {len(figures)} still open"
                return [Note("budget-used-up", text)]
            if not left:
                break
            if number == 1 or base.worn or head.worn:
                base.close()
                head.close()
    return []


def pair(figure: PairedFigure, base: Server, head: Server, random: Random) -> None:
    """Measure a figure once on each side; a failure or a skip closes it.

    Times in lockstep, call by call; all else one side after the other. In random order.
    """
    servers = (base, head)
    if figure.benchmark["kind"] not in ("time", "timeraw"):
        answers = {side: alone(figure, servers[side]) for side in random.sample((0, 1), 2)}
        record(figure, answers[0], answers[1])
        return
    if figure.plan is None:
        first = alone(figure, base)  # what warms up is thrown away
        if first["status"] != "ok":
            record(figure, first, alone(figure, head))
            return
        figure.plan = first["plan"]
    record(figure, *together(figure, servers, random.getrandbits(32)))


def alone(figure: PairedFigure, server: Server) -> Answer:
    """What one side says of a figure."""
    return server.begin(figure.benchmark, figure.params, figure.plan)()


def together(
    figure: PairedFigure, servers: tuple[Server, Server], seed: int
) -> tuple[Answer, Answer]:
    """What both sides say of a time that they measured in lockstep.

    A side whose other one failed is asked again, alone, so that the failure is told of the other.
    """
    assert figure.plan is not None
    waiting = []
    for side, server in enumerate(servers):
        path = f"../lockstep-{seed}"  # runners work in folders beside each other
        lockstep = {"path": path, "side": side, "seed": seed, "patience": RENDEZVOUS}
        waiting.append(server.begin(figure.benchmark, figure.params, figure.plan, lockstep))
    answers = [answer() for answer in waiting]
    for side, answer in enumerate(answers):
        if answer["status"] == "alone":
            answers[side] = alone(figure, servers[side])
    if all("samples" in answer for answer in answers):
        spoilt = set(answers[0]["slowed"]) | set(answers[1]["slowed"])
        samples = zip(*(each["samples"] for each in answers), strict=True)
        kept = [pair for i, pair in enumerate(samples) if i not in spoilt]
        if kept:
            answers[0]["value"] = median(b for b, _ in kept)
            answers[1]["value"] = answers[0]["value"] * median(h / b for b, h in kept)
    return answers[0], answers[1]


def record(figure: PairedFigure, base: Answer, head: Answer) -> None:
    """Take a pair of answers into a figure."""
    states = {base["status"], head["status"]}
    if states == {"ok"}:
        spoilt = set(base.get("slowed", ())) | set(head.get("slowed", ())) if figure.clocked else ()
        figure.discarded += len(spoilt)
        if len(spoilt) == len(base.get("samples", (0,))):
            return
        figure.base.append(float(base["value"]))
        figure.head.append(float(head["value"]))
        return
    figure.closed = True
    sides = (("base", base, figure.base), ("head", head, figure.head))
    failed = [f"{name}: {said['detail']}" for name, said, _ in sides if said["status"] == "failed"]
    for _, answer, samples in sides:
        if answer["status"] == "failed" or not failed:
            samples.clear()
    figure.status = "failed" if failed else "skipped"
    if failed:
        figure.detail = "; ".join(failed)
    elif "ok" in states:
        figure.detail = VANISHED if base["status"] == "ok" else NEW
    else:
        figure.detail = head["detail"] or base["detail"] or "skipped on both sides"


def discarded(figures: Iterable[PairedFigure]) -> list[Note]:
    """A note on what GPUs that were slowed down have spoilt."""
    spoilt = [figure.discarded for figure in figures if figure.discarded]
    text = f"{sum(spoilt)} samples of {len(spoilt)} figures thrown away: a GPU was slowed down"
    return [Note("samples-discarded", text)] if spoilt else []


def close(figures: Iterable[PairedFigure], limits: Limits, stop: Stop) -> None:
    """Close each figure whose answer is clear."""
    found = [figure for figure in figures if figure.status == "ok"]
    family = max(sum(not figure.exact for figure in found), 1)
    looks = sequential.looks(limits.fewest, limits.most)
    for figure in found:
        n = len(figure.base)
        if figure.exact:
            figure.closed = n >= (1 if figure.benchmark["deterministic"] else EXACT_ROUNDS)
        elif n == limits.most:
            figure.closed = True
        elif not figure.closed and n in looks:
            figure.closed = stop(figure, family)
