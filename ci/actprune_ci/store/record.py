"""Recording: files of any known tool go into the store, or are set aside with the reason."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Literal

from actprune_ci import readers
from actprune_ci.readers.fields import full_hash
from actprune_ci.store import store
from actprune_common.errors import InputError
from actprune_common.files import write_whole

ASV_OWN = ("machine.json", "benchmarks.json")
"""Files of asv's that explain its results and hold none."""


@dataclass(frozen=True)
class Recording:
    """What became of one input."""

    path: Path
    status: Literal["recorded", "duplicate", "set aside"]
    files: tuple[Path, ...] = ()
    """In the store: the run's file or files; of a duplicate, those that were there."""
    reason: str = ""


def record(
    paths: Sequence[Path], into: Path, commit: str | None = None, machine: str | None = None
) -> list[Recording]:
    """Record files, and every *.json in folders, in the store `into`; one outcome per file.

    `commit` and `machine` replace what the files say. Inputs are never changed. What is
    half-written, corrupt or of no known tool is copied to set-aside/, with its reason, and the rest
    is recorded; of a duplicate the reason alone is kept, its contents being in the store already.
    Raises InputError, before anything is recorded, for a path that does not exist and a commit that
    is
    no full hash; and where the store cannot be written: what came before is recorded, and nothing
    is half-written.
    """
    if re.match(r"[a-z0-9]{2,}:/", str(into)):  # a Path has lost the second slash of a URL
        raise InputError(
            f"{into}: record writes to a local folder: copy its files to an object store"
        )
    if commit and not full_hash(commit):
        raise InputError(f"commit: expected a full hash, of 40 hexadecimal digits, got {commit!r}")
    files = list(_inputs(paths, into))
    return [_record_one(path, into, commit, machine) for path in files]


def _inputs(paths: Iterable[Path], into: Path) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            inside = (p for p in sorted(path.rglob("*.json")) if p.name not in ASV_OWN)
            own = into.resolve()
            yield from (p for p in inside if p.is_file() and own not in p.resolve().parents)
        elif path.exists():
            yield path
        else:
            raise InputError(f"{path}: no such file or folder")


def _record_one(path: Path, into: Path, commit: str | None, machine: str | None) -> Recording:
    try:
        runs = [
            replace(run, commit=commit or run.commit, machine=machine or run.machine)
            for run in readers.read(path)
        ]
    except InputError as problem:
        return _set_aside(path, into, str(problem))
    written = [store.write(run, into) for run in runs]
    if new := tuple(file for file in written if file is not None):
        return Recording(path, "recorded", new)
    there = tuple(file for run in runs if (file := store.found(store.canonical(run), into)))
    reason = f"{path}: a duplicate of {', '.join(file.name for file in there)}"
    _write_reason(into / store.SET_ASIDE / f"{there[0].stem}.duplicate", path, reason)
    return Recording(path, "duplicate", there, reason)


def _set_aside(path: Path, into: Path, reason: str) -> Recording:
    """Copy an input and write its reason beside; the same contents are kept once."""
    try:
        contents = path.read_bytes()
    except OSError:  # what cannot be read has a reason only
        contents = None
    name = sha256(str(path).encode() if contents is None else contents).hexdigest()[:16]
    copy = into / store.SET_ASIDE / f"{name}-{path.name}"
    if contents is not None and not copy.exists():
        write_whole(copy, contents)
    _write_reason(copy, path, reason)
    return Recording(path, "set aside", (), reason)


def _write_reason(beside: Path, path: Path, reason: str) -> None:
    note = beside.with_name(f"{beside.name}.reason.txt")
    if not note.exists():
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_whole(note, f"{reason}\nfrom {path.resolve()}\non {now}\n")
