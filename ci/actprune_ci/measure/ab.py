"""A/B runs: two commits measured in pairs, in fresh processes, in random order.

Each side has a runner, which imports the suite once. In a round each figure that is still open is
measured once per side, in processes forked from the runners. Times are measured in turn: while one
side takes a sample the other waits, and the pair is the median of the ratios of neighbouring
samples, so that the noise of a machine falls on both sides alike; what has `threads = 1` runs on
one core on both sides. All else is measured one side after the other, in random order. When runners
have worked four times as long as they took to start, fresh ones follow: no two pairs of a figure
share a process, few share a runner, and imports take at most a fifth of the time. A figure is
closed when its answer is clear (actprune_ci.measure.sequential).
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from random import Random

from actprune_ci.measure import machine
from actprune_ci.measure.checkouts import Checkouts, Side
from actprune_ci.measure.pairing import Limits, PairedFigure, discarded, rounds
from actprune_ci.measure.serving import Answer, Server
from actprune_ci.model.reading import compiled
from actprune_ci.model.runs import VANISHED, AbRun, Key, Note, Pairs
from actprune_ci.readers.asv import key as asv_key
from actprune_common.errors import InputError


@dataclass(frozen=True)
class Options:
    """Which figures are measured, and how long."""

    benchmarks: str = ""
    """A regular expression, found anywhere in `name(param=value, ...)`."""
    suite: str = "benchmarks"
    """The suite's folder in the repository; head's measures both sides."""
    limits: Limits = field(default_factory=Limits)
    seed: int = 0


@dataclass(frozen=True)
class Listed:
    """What a side's runner says of a suite."""

    keys: dict[Key, tuple[Answer, tuple[str, ...]]]
    """Each figure's benchmark, and its parameters as the runner spells them."""
    problems: dict[str, str]
    facts: dict[str, str]


def run(
    checkouts: Checkouts,
    base: str,
    head: str,
    options: Options,
    save: Callable[[AbRun], None] = lambda _: None,
    progress: Callable[[str], None] = lambda _: None,
) -> AbRun:
    """Measure base and head (full hashes); what was measured is saved after each round.

    A KeyboardInterrupt saves what there is and goes on its way. Raises BuildError where a commit
    does not build, and InputError where there is no suite or nothing in it matches.
    """
    began = machine.state()
    servers, figures, start = prepare(checkouts, base, head, options)

    def result(*more: Note) -> AbRun:
        now = machine.state()
        pairs = (*(figure.pairs() for figure in figures), *start.pairs)
        notes = (*start.notes, *machine.notes(began, now), *discarded(figures), *more)
        seconds = round(now.monotonic - began.monotonic, 1)
        return replace(start, pairs=pairs, seconds=seconds, notes=notes)

    def after(line: str) -> None:
        save(result())
        progress(line)

    try:
        over = rounds(servers, figures, options.limits, Random(options.seed), after=after)
    except KeyboardInterrupt:
        save(result(Note("interrupted", "interrupted")))
        raise
    final = result(*over)
    save(final)
    return final


def prepare(
    checkouts: Checkouts, base: str, head: str, options: Options
) -> tuple[list[Server], list[PairedFigure], AbRun]:
    """Build both commits and find the figures. Raises as `run` does.

    The run's pairs are those that need no measurement: what base's own suite has and head's has
    not.
    """
    pattern, date = compiled(options.benchmarks), datetime.now(timezone.utc)
    facts, load = machine.facts(), machine.load_note()
    sides = checkouts.side(base), checkouts.side(head)
    suite = checkouts.suite(head, options.suite)
    listed = [listed_by(side, suite, checkouts.python) for side in sides]
    ours = listed[1].keys
    figures = [PairedFigure(key, *ours[key]) for key in ours if pattern.search(str(key))]
    gone: list[Pairs] = []
    if (sides[0].tree / options.suite).is_dir():
        own = listed_by(sides[0], checkouts.suite(base, options.suite), checkouts.python)
        lost = [key for key in own.keys if key not in ours and pattern.search(str(key))]
        gone = [Pairs(key, status="skipped", detail=VANISHED) for key in lost]
    if not figures and not gone:
        raise InputError(f"--benchmarks: none of the suite's fits {options.benchmarks!r}")
    of_base, of_head = (
        {**facts, **side.facts, **one.facts} for side, one in zip(sides, listed, strict=True)
    )
    about = base, head, date.isoformat(timespec="seconds"), facts["fingerprint"]
    start = AbRun(*about, of_base, of_head, tuple(gone), notes=(*load, *import_notes(listed)))
    return [Server(side, suite, checkouts.python) for side in sides], figures, start


def listed_by(side: Side, suite: Path, python: str) -> Listed:
    """What a suite has, with this side's code. Raises InputError where it cannot even be asked."""
    with closing(Server(side, suite, python)) as server:
        answer = server.list()
    if "benchmarks" not in answer:
        raise InputError(f"{side.commit[:12]}: {answer['detail']}")
    keys = {
        asv_key(each["name"], params, each["param_names"], each["unit"]): (each, params)
        for each in answer["benchmarks"]
        for params in product(*each["params"])
    }
    return Listed(keys, answer["problems"], answer["facts"])


def import_notes(listed: Sequence[Listed]) -> list[Note]:
    """What of the suite could not be imported, per side."""
    return [
        Note("not-imported", f"{name}: {module} cannot be imported: {problem}")
        for name, one in zip(("base", "head"), listed, strict=True)
        for module, problem in one.problems.items()
    ]
