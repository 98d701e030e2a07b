"""Readers: a file of any tool becomes runs of the harness; READERS is the registry.

A reader is a module whose `runs` gives runs that actprune_ci.model.serialise.check finds sound; the
path that it takes is for messages and for files beside the one read. Files are known by their
contents, never by their names.
"""

from pathlib import Path

from actprune_ci.model.reading import json_object
from actprune_ci.model.runs import Run
from actprune_ci.model.serialise import check
from actprune_ci.readers import ab, actprune, asv, pytest_benchmark, static
from actprune_common.errors import InputError

READERS = {
    "asv results": (asv, [{"commit_hash", "results"}]),
    "pytest-benchmark JSON": (pytest_benchmark, [{"machine_info", "benchmarks"}]),
    "actprune results.json": (actprune, [{"kernels", "training"}]),
    "actprune static JSON": (static, [{"environment", "records"}]),
    "ab.json or a run": (ab, [{"schema", "pairs"}, {"schema", "measurements"}]),
}
"""What each tool's files are called, who reads them, and the keys that they have, whatever their
version: one of these sets."""


def read(path: Path) -> tuple[Run, ...]:
    """The runs in a file of any known tool (two, base and head, of an A/B run).

    Raises InputError, which begins with the path, where the file is unreadable, half-written, of no
    known tool, or not sound.
    """
    document = json_object(path)
    for name, (reader, known_by) in READERS.items():
        if any(keys <= document.keys() for keys in known_by):
            runs = tuple(check(run, str(path)) for run in reader.runs(document, path))
            if not any(run.measurements for run in runs):
                raise InputError(f"{path}: {name} without a single measurement")
            return tuple(run for run in runs if run.measurements)
    raise InputError(f"{path}: of no known tool: expected one of {', '.join(READERS)}")
