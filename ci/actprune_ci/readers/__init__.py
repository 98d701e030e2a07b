"""Readers: a file of any tool becomes runs of the harness; READERS is the registry.

A reader recognises its files by their contents, never by their names, and gives runs that
actprune_ci.model.serialise.check finds sound.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actprune_ci.model.reading import json_object
from actprune_ci.model.runs import Run
from actprune_ci.model.serialise import check
from actprune_ci.readers import ab, actprune, asv, pytest_benchmark, static
from actprune_common.errors import InputError


@dataclass(frozen=True)
class Reader:
    """How one tool's files are known and read."""

    name: str
    recognises: Callable[[Mapping[str, Any]], bool]
    runs: Callable[[Mapping[str, Any], Path], tuple[Run, ...]]
    """The document's runs; the path is for messages and for files beside it."""


READERS = (
    Reader("asv results", asv.recognises, asv.runs),
    Reader("pytest-benchmark JSON", pytest_benchmark.recognises, pytest_benchmark.runs),
    Reader("actprune results.json", actprune.recognises, actprune.runs),
    Reader("actprune static JSON", static.recognises, static.runs),
    Reader("ab.json or a run", ab.recognises, ab.runs),
)


def read(path: Path) -> tuple[Run, ...]:
    """The runs in a file of any known tool (two, base and head, of an A/B run).

    Raises InputError, which begins with the path, where the file is unreadable, half-written, of no
    known tool, or not sound.
    """
    document = json_object(path)
    for reader in READERS:
        if reader.recognises(document):
            runs = tuple(check(run, str(path)) for run in reader.runs(document, path))
            if not any(run.measurements for run in runs):
                raise InputError(f"{path}: {reader.name} without a single measurement")
            return tuple(run for run in runs if run.measurements)
    known = ", ".join(reader.name for reader in READERS)
    raise InputError(f"{path}: of no known tool: expected one of {known}")
