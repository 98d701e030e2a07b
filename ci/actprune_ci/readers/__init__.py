"""Readers: a file of any tool becomes runs of the harness; READERS is the registry.

A reader is a module whose `runs` takes a JSON document, and the path for messages and for files
beside the one read. What its file does not tell it leaves empty: commit, date, machine. Files are
known by their contents, never by their names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

from actprune_ci.model.dates import utc
from actprune_ci.model.reading import LARGEST, json_object
from actprune_ci.model.runs import Run
from actprune_ci.model.serialise import check
from actprune_ci.readers import (
    ab,
    actprune,
    asv,
    criterion,
    github_action_benchmark,
    google_benchmark,
    hyperfine,
    nvbench,
    pytest_benchmark,
    static,
)
from actprune_ci.readers.fields import commit_of, full_hash
from actprune_common.errors import InputError
from actprune_common.printable import visible

READERS: Mapping[str, tuple[ModuleType, Sequence[set[str]]]] = {
    "asv results": (asv, [{"commit_hash", "results"}]),
    "pytest-benchmark JSON": (pytest_benchmark, [{"machine_info", "benchmarks"}]),
    "actprune results.json": (actprune, [{"kernels", "training"}]),
    "actprune static JSON": (static, [{"environment", "records"}]),
    "ab.json or a run": (ab, [{"schema", "pairs"}, {"schema", "measurements"}]),
    "github-action-benchmark data.js": (github_action_benchmark, [{"lastUpdate", "entries"}]),
    "criterion": (criterion, [{"messages"}, {"iters", "times"}, {"median", "median_abs_dev"}]),
    "nvbench JSON": (nvbench, [{"meta", "devices", "benchmarks"}]),
    "google-benchmark JSON": (google_benchmark, [{"context", "benchmarks"}]),
    "hyperfine JSON": (hyperfine, [{"results"}]),
}
"""What each tool's files are called, who reads them, and the keys that they have, whatever their
version: one of these sets. The first that fits counts."""


def read(path: Path, commit: str | None = None, machine: str | None = None) -> tuple[Run, ...]:
    """The runs in a file of any known tool (two, base and head, of an A/B run).

    Args:
        path: a regular file.
        commit, machine: replace what the file says.

    Raises:
        InputError: one line that begins with the path, where the file is unreadable, half-written,
            of no known tool, or not sound. Nothing else, whatever stands in the file.
    """
    name = "a result file"
    try:
        document = json_object(path)
        name, reader = _known(document, path)
        runs = _complete(reader.runs(document, path), path, commit, machine)
        _check_size(runs, path)
        runs = [check(run, str(path)) for run in runs if run.measurements]
        if not runs:
            raise InputError(f"{path}: {name} without a single measurement")
        return tuple(runs)
    except InputError as problem:
        told = str(problem)
    except Exception as problem:  # whatever a reader stumbles over, it ends no recording
        told = f"{path}: read as {name}: {type(problem).__name__}: {problem}"
    raise InputError(visible(told[:1000]))


def _known(document: Mapping[str, Any], path: Path) -> tuple[str, ModuleType]:
    for name, (reader, known_by) in READERS.items():
        if any(keys <= document.keys() for keys in known_by):
            return name, reader
    raise InputError(f"{path}: of no known tool: expected one of {', '.join(READERS)}")


def _complete(
    runs: Sequence[Run], path: Path, commit: str | None, machine: str | None
) -> list[Run]:
    """The runs with what the caller tells and the file does not; each must then have it all."""
    if commit and (
        len({run.commit for run in runs}) > 1 or any(run.source == "ab" for run in runs)
    ):
        raise InputError(f"{path}: --commit: this file tells several commits or sides of its own")
    made = []
    for run in runs:
        run = replace(run, commit=commit_of(commit or run.commit), machine=machine or run.machine)
        if run.commit and not full_hash(run.commit):
            told = f"got {run.commit!r}: give --commit"
            raise InputError(f"{path}: commit: expected a full hash, of 40 digits, {told}")
        if not run.machine:
            raise InputError(f"{path}: machine: expected a name, the file has none: give --machine")
        if not run.date:
            changed = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).isoformat()
            environment = {**run.environment, "date_from": "the file's last change"}
            run = replace(run, date=changed, environment=environment)
        try:
            made.append(replace(run, date=utc(run.date)))
        except ValueError as problem:
            raise InputError(f"{path}: date: {problem}") from None
    return made


def _check_size(runs: Sequence[Run], path: Path) -> None:
    """A small file can name a long benchmark, or a long parameter, in a million figures."""
    keys = (m.key for run in runs for m in run.measurements)
    size = sum(len(k.benchmark) + sum(len(n) + len(v) for n, v in k.params) for k in keys)
    if size > LARGEST // 4:
        raise InputError(f"{path}: expected names of at most {LARGEST // 4} bytes, got {size}")
