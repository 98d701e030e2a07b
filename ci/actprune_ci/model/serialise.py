"""Runs and A/B runs as JSON (schema 1): the fields of actprune_ci.model, checked both ways."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from actprune_ci.model.dates import utc
from actprune_ci.model.reading import validated
from actprune_ci.model.runs import AbRun, Key, Note, Run, Status
from actprune_common.errors import InputError, expected
from actprune_common.files import by_lines, contents, json_value, write_whole

SCHEMA = 1
_RUN, _AB, _NOTES = TypeAdapter(Run), TypeAdapter(AbRun), TypeAdapter(tuple[Note, ...])
AnyRun = TypeVar("AnyRun", bound=Run | AbRun)


def to_json(run: Run | AbRun) -> str:
    """The run as JSON, a line per measurement or pair. Raises InputError where it is not sound.

    A Run has `measurements`, an AbRun has `pairs`; both have `schema`: 1.
    """
    check(run)
    return by_lines({"schema": SCHEMA, **asdict(run)})


def from_json(text: str | bytes, where: str = "JSON") -> Run | AbRun:
    """The run in `text`; InputError begins with `where` and names the first field that is wrong."""
    document = json_value(text, where)
    if not isinstance(document, dict) or not {"pairs", "measurements"} & set(document):
        raise InputError(
            f"{where}: expected an object with measurements (a run) or pairs (an A/B run)"
        )
    if document.get("schema") != SCHEMA:
        raise InputError(f"{where}: schema: expected {SCHEMA}, got {document.get('schema')!r}")
    kind: TypeAdapter[Any] = _AB if "pairs" in document else _RUN
    run: Run | AbRun = check(
        validated(where, partial(kind.validate_json, strict=True), text), where
    )
    return replace(run, date=utc(run.date))


def read_ab(path: Path) -> AbRun:
    """The AbRun in an ab.json. Raises InputError for anything else."""
    run = from_json(contents(path), str(path))
    if not isinstance(run, AbRun):
        raise InputError(f"{path}: expected an A/B run (pairs), got a run (measurements)")
    return run


def write(path: Path, run: Run | AbRun) -> None:
    """Write the run as JSON, whole or not at all. Raises InputError where it cannot."""
    write_whole(path, to_json(run))


def notes_to_text(notes: Sequence[Note]) -> str:
    """The notes as one text, for a run's environment: JSON, or nothing where there is none."""
    return _NOTES.dump_json(tuple(notes)).decode() if notes else ""


def notes_from_text(text: str) -> tuple[Note, ...]:
    """The notes in a run's environment. A store from before codes has their texts, joined."""
    if text.startswith("["):
        return _NOTES.validate_json(text)
    return _NOTES.validate_python([each for each in text.split("; ") if each])


def check(run: AnyRun, where: str = "run") -> AnyRun:
    """The run itself, if it is sound; else InputError names what is not.

    Sound: the date is ISO 8601; no figure stands twice, nor a parameter in it; every sample is
    finite; a figure has samples exactly where its status is ok; the sides of a pair that is ok have
    equally many.
    """
    try:
        utc(run.date)
    except ValueError as problem:
        raise InputError(f"{where}: date: {problem}") from None
    if isinstance(run, Run):
        _once((m.key for m in run.measurements), where)
        for m in run.measurements:
            _check_samples(m.samples, m.status, f"{where}: {m.key}, {m.key.metric}: samples")
        return run
    _once((p.key for p in run.pairs), where)
    for p in run.pairs:
        name = f"{where}: {p.key}, {p.key.metric}"
        for side, samples in (("base", p.base), ("head", p.head)):
            # a benchmark that vanished may still have one side's samples
            _check_samples(samples, "ok" if p.status == "ok" else None, f"{name}: {side}")
        if p.status == "ok" and len(p.base) != len(p.head):
            raise expected(name, "pairs", f"{len(p.base)} of base, {len(p.head)} of head")
    return run


def _once(keys: Iterable[Key], where: str) -> None:
    for key, count in Counter(keys).items():
        if count > 1:
            raise InputError(f"{where}: {key}, {key.metric}: expected once, stands {count} times")
        if len(dict(key.params)) < len(key.params):
            raise InputError(f"{where}: {key}: params: expected each name once")


def _check_samples(samples: Sequence[float], status: Status | None, name: str) -> None:
    if status == "ok" and not samples:
        raise InputError(f"{name}: expected at least one where the status is ok, got none")
    if status in ("failed", "skipped") and samples:
        raise InputError(f"{name}: expected none where the status is {status}, got {len(samples)}")
    if odd := [sample for sample in samples if not isfinite(sample)]:
        raise InputError(f"{name}: expected finite numbers, got {odd[0]}")
