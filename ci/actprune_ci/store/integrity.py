"""Whether a run's file is what was recorded: its name holds a digest of its bytes.

    DATE-CONTENT-BYTES.parquet   BYTES is of the file's bytes and of the rest of its name
    DATE-CONTENT.parquet         schema 1: CONTENT, of what the run holds, alone can tell

A flipped bit may well leave a sound Parquet file with other rows, so no file is used unverified.
"""

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

_NAME = re.compile(r"(\d{1,8}T\d{6}Z-[0-9a-f]{16})(?:-([0-9a-f]{16}))?\.parquet")


class FileName(NamedTuple):
    """The parts of the name of a run's file."""

    run: str
    """DATE-CONTENT, the same for all files of the same run; empty where it is no run's name."""
    digest: str = ""
    """BYTES; empty in schema 1."""


def parsed(path: str) -> FileName:
    """Return the parts of a file's name, of its path or URL."""
    fits = _NAME.fullmatch(path.rpartition("/")[2])
    return FileName(fits[1], fits[2] or "") if fits else FileName("")


def file_name(run: str, content: bytes) -> str:
    """Return the name of a file of a run (DATE-CONTENT) that has this content."""
    return f"{run}-{_digest(run, content)}.parquet"


def why_changed(path: str, content: bytes) -> str:
    """Return what is wrong with a file, by its name and its bytes alone; nothing where they fit.

    The bytes tell nothing of a file of schema 1.
    """
    run, digest = parsed(path)
    if not run:
        return f"{path}: name: expected DATE-DIGEST-DIGEST.parquet"
    if digest and (there := _digest(run, content)) != digest:
        return f"{path}: digest: the bytes have {there}, so they or the name were changed"
    return ""


def one_of_each(paths: Iterable[str]) -> list[str]:
    """Return one file of each run, in order: two versions of DuckDB may have written the same run.

    One with a digest of its bytes goes before one without.
    """
    of_runs: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: (not parsed(path).digest, path)):
        of_runs.setdefault(parsed(path).run, path)
    return sorted(of_runs.values())


def _digest(run: str, content: bytes) -> str:
    state = sha256(content)
    state.update(run.encode())
    return state.hexdigest()[:16]
