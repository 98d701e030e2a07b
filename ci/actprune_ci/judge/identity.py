"""Which A/B runs are one and the same: a run that is given twice confirms nothing."""

from collections.abc import Iterable

from actprune_ci.model.dates import instant
from actprune_ci.model.runs import AbRun, Key

Samples = frozenset[tuple[Key, tuple[float, ...], tuple[float, ...]]]


def distinct(runs: Iterable[AbRun]) -> list[AbRun]:
    """Return each A/B run once, in the order given, the fullest of its copies.

    Copies are runs of one machine, base and head that began in the same second, as an interrupted
    run and the whole one do, and those whose samples are all the same, whatever their dates say.
    """
    kept: list[AbRun] = []
    for run in runs:
        twin = next((i for i, other in enumerate(kept) if same(other, run)), None)
        if twin is None:
            kept.append(run)
        elif samples_of(run) > samples_of(kept[twin]):
            kept[twin] = run
    return kept


def same(one: AbRun, other: AbRun) -> bool:
    """Whether two A/B runs are copies of one another."""
    if (one.machine, one.base, one.head) != (other.machine, other.base, other.head):
        return False
    if not {pairs.key for pairs in one.pairs} & {pairs.key for pairs in other.pairs}:
        return False  # two tools' files may well have one date
    # figures that never vary look alike in every run, and there is nothing to confirm in them
    began = (instant(run.date).replace(microsecond=0) for run in (one, other))
    return next(began) == next(began) or bool(varying(one) and varying(one) == varying(other))


def varying(run: AbRun) -> Samples:
    """The samples of the figures that vary within a side."""
    return frozenset(
        (pairs.key, pairs.base, pairs.head)
        for pairs in run.pairs
        if pairs.status == "ok" and len({*pairs.base}) + len({*pairs.head}) > 2
    )


def samples_of(run: AbRun) -> int:
    """How many samples a run has."""
    return sum(len(pairs.base) + len(pairs.head) for pairs in run.pairs)
