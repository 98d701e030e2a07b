"""Folders that can be gone on in, and files that are written whole or not at all."""

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from actprune_common.errors import InputError

_ONWARD = "--resume goes on there"


def make_folder(path: Path, *, resume: bool, onward: str = _ONWARD) -> bool:
    """Make `path` where it is not there; returns whether something is in it already.

    Raises InputError where it cannot be made, and where it is in use and resume is False; onward:
    what to do then instead of naming another folder.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"{path}: cannot be made ({problem.strerror})") from None
    return look_in(path, resume=resume, onward=onward)


def look_in(path: Path, *, resume: bool, onward: str = _ONWARD) -> bool:
    """Whether something is in `path`, which need not be there; raises as make_folder does."""
    try:
        # a process killed while writing its first file leaves that one alone
        used = any(entry.suffix != ".tmp" for entry in path.iterdir())
    except FileNotFoundError:
        return False
    except OSError as problem:
        raise InputError(f"{path}: cannot be used ({problem.strerror})") from None
    if used and not resume:
        raise InputError(f"{path}: is not empty; {onward}, or name another folder")
    return used


def write_json(path: Path, value: object) -> None:
    """Write JSON whole or not at all; numbers that are not finite become null."""
    text = json.dumps(_finite(value), indent=2, allow_nan=False)
    write_whole(path, f"{text}\n".encode())


def write_whole(path: Path, content: bytes | memoryview, keep: Path | None = None) -> None:
    """Write beside `path`, then put it in its place; `keep` is where the old file goes.

    Raises InputError where that fails (a full disk, say), with the old file as it was.
    """
    beside = path.with_name(f"{path.name}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        beside.replace(path)
        _sync_folder(path.parent)
    except OSError as problem:
        with suppress(OSError):
            beside.unlink()
        raise InputError(
            f"{path}: cannot be written ({problem.strerror}); what was saved before is intact"
        ) from None


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows opens no folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
