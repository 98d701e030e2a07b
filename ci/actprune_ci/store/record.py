"""Recording: files of any known tool go into the store, or are set aside with the reason."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Literal

from actprune_ci import readers
from actprune_ci.model.reading import ASSIGNED, regular
from actprune_ci.readers.fields import commit_of, full_hash
from actprune_ci.store import store
from actprune_common.errors import InputError
from actprune_common.files import write_whole
from actprune_common.printable import visible

EXPLAIN = ("machine.json", "benchmarks.json", "benchmark.json", "estimates.json", "tukey.json")
"""Files of asv's and criterion's that stand beside results and hold none; in folders they are
passed over.
"""


@dataclass(frozen=True)
class Recording:
    """What became of one input."""

    path: Path
    status: Literal["recorded", "duplicate", "set aside"]
    files: tuple[Path, ...] = ()
    """In the store: the run's file or files; of a duplicate, those that were there."""
    reason: str = ""
    without_commit: int = 0
    """Runs among them that have no place in a history."""


def record(
    paths: Sequence[Path], into: Path, commit: str | None = None, machine: str | None = None
) -> list[Recording]:
    """Record files, and the results in folders, in the store `into`; one outcome per file.

    Of a folder: every *.json but those that only explain, and JavaScript that holds JSON. Inputs
    are never changed. What is half-written, corrupt, no regular file or of no known tool is copied
    to set-aside/, with its reason, and the rest is recorded; of a duplicate the reason alone is
    kept, its contents being in the store already.

    Args:
        paths: files and folders.
        into: the store's folder.
        commit, machine: replace what the files say.

    Raises:
        InputError: before anything is recorded, for a path that does not exist, a commit that is no
            full hash and a machine of no printable name; and where the store cannot be written:
            what came before is recorded, and nothing is half-written.
    """
    if re.match(r"[a-z0-9]{2,}:/", str(into)):  # a Path has lost the second slash of a URL
        raise InputError(
            f"{into}: record writes to a local folder: copy its files to an object store"
        )
    if commit and not full_hash(commit_of(commit)):
        raise InputError(f"commit: expected a full hash, of 40 hexadecimal digits, got {commit!r}")
    if machine and not machine.isprintable():
        raise InputError(f"machine: expected a printable name, got {machine!r}")
    for path in paths:
        if not os.path.lexists(path):  # Path.exists raises for a name that is too long
            raise InputError(f"{visible(str(path))}: no such file or folder")
    return [
        Recording(found, "set aside", (), reason)
        if reason
        else _record_one(found, into, commit, machine)
        for path in paths
        for found, reason in list(_inputs(path, into))
    ]


def _inputs(path: Path, into: Path) -> Iterator[tuple[Path, str]]:
    """The files of one input, each with why it cannot be read where it is a folder that cannot."""
    if not os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises where it may not look
        yield path, ""
        return
    refused: list[OSError] = []
    own, found = into.resolve(), []
    for folder, folders, names in os.walk(path, onerror=refused.append):
        real = Path(folder).resolve()
        if own == real or own in real.parents:
            folders.clear()
            continue
        found += [file for name in names if _may_hold_results(file := Path(folder, name))]
    yield from ((file, "") for file in sorted(found))
    for problem in refused:
        told = f"{problem.filename}: cannot be listed ({problem.strerror})"
        yield Path(str(problem.filename)), visible(told)


def _may_hold_results(file: Path) -> bool:
    """Whether a folder's file is to be recorded, or set aside with a reason."""
    if file.suffix == ".json":
        # criterion keeps earlier runs of a benchmark beside the new one
        return file.name not in EXPLAIN and (
            file.name != "sample.json" or file.parent.name == "new"
        )
    if file.suffix != ".js":
        return False
    try:
        return bool(ASSIGNED.match(regular(file)))
    except InputError:
        return False


def _record_one(path: Path, into: Path, commit: str | None, machine: str | None) -> Recording:
    try:
        runs = readers.read(path, commit, machine)
    except InputError as problem:
        return _set_aside(path, into, str(problem))
    try:
        written = [store.write(run, into) for run in runs]
    except InputError:
        raise  # the store's folder, not this file
    except Exception as problem:
        told = f"{path}: the store cannot hold it: {type(problem).__name__}: {problem}"
        return _set_aside(path, into, visible(told))
    without = sum(not run.commit for run in runs)
    if new := tuple(file for file in written if file is not None):
        return Recording(path, "recorded", new, without_commit=without)
    there = tuple(file for run in runs if (file := store.found(store.canonical(run), into)))
    reason = visible(f"{path}: a duplicate of {', '.join(file.name for file in there)}")
    _write_reason(into / store.SET_ASIDE / f"{there[0].stem}.duplicate", path, reason)
    return Recording(path, "duplicate", there, reason, without)


def _set_aside(path: Path, into: Path, reason: str) -> Recording:
    """Copy an input and write its reason beside; the same contents are kept once."""
    try:
        contents = regular(path)
    except InputError:  # what cannot be read has a reason only
        contents = None
    name = sha256(os.fsencode(path) if contents is None else contents).hexdigest()[:16]
    short = re.sub(r"[^A-Za-z0-9_.+-]", "_", path.name)[-100:]  # a file system's limit is 255 bytes
    copy = into / store.SET_ASIDE / f"{name}-{short}"
    if contents is not None and not copy.exists():
        write_whole(copy, contents)
    _write_reason(copy, path, reason)
    return Recording(path, "set aside", (), reason)


def _write_reason(beside: Path, path: Path, reason: str) -> None:
    note, absolute = beside.with_name(f"{beside.name}.reason.txt"), str(path.absolute())
    if not note.exists():
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_whole(note, f"{reason}\nfrom {visible(absolute)}\non {now}\n")
