"""Folders that can be gone on in, and files that are written whole or not at all."""

import json
import math
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

from actprune_common.errors import InputError

STALE_S = 3600.0
"""The age of a temporary file whose writer is taken for dead."""
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{32}\.tmp", re.DOTALL)
_ONWARD = "--resume goes on there"


def make_folder(path: Path, *, resume: bool, onward: str = _ONWARD) -> bool:
    """Make `path` where it is not there; returns whether something is in it already.

    What a killed process left half written goes. Raises InputError where it cannot be made, and
    where it is in use and resume is False; onward: what to do then instead of naming another
    folder.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"{path}: cannot be made ({problem.strerror})") from None
    used = look_in(path, resume=resume, onward=onward)
    for left in path.glob(".*.tmp"):
        with suppress(OSError):
            left.unlink()
    return used


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


@contextmanager
def alone(lock: Path, problem: str) -> Iterator[None]:
    """No other process is in a folder while this lasts; the system frees a dead one's lock.

    Raises InputError where the folder of the file `lock` cannot be made, and with `problem` where
    another process has it.
    """
    import fcntl  # POSIX alone has it

    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("ab")
    except OSError as refusal:
        raise InputError(f"{lock.parent}: cannot be written: {refusal.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{lock.parent}: {problem}") from None
        yield


def write_json(path: Path, value: object) -> None:
    """Write JSON whole or not at all; numbers that are not finite become null."""
    write_whole(path, f"{json.dumps(finite(value), indent=2, allow_nan=False)}\n")


def write_whole(path: Path, content: bytes | str | memoryview, keep: Path | None = None) -> None:
    """Write `content` (text as UTF-8) to `path`, whole or not at all; raises as `whole` does."""
    with whole(path, keep=keep) as beside, beside.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def whole(path: Path, *, overwrite: bool = True, keep: Path | None = None) -> Iterator[Path]:
    """A file to write beside `path` that takes its place, synced to disk, when the block ends well.

    keep: where the old file goes. Without `overwrite` an existing `path` raises FileExistsError and
    is left as it was. Several processes may write a path at once: one of them is the last. Raises
    InputError where the file system refuses (a full disk, say), with the old file as it was.
    """
    beside = path.with_name(temporary_name(path.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path.parent)
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        if overwrite:
            beside.replace(path)
        else:
            os.link(beside, path)
        _sync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as problem:
        why = f"cannot be written ({problem.strerror or problem})"
        raise InputError(f"{path}: {why}; what was saved before is intact") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def temporary_name(name: str) -> str:
    """The name of what is made beside a file or folder of this name; a killed writer leaves it."""
    return f".{name.encode()[:80].decode(errors='ignore')}.{uuid4().hex}.tmp"


@cache
def remove_stale(folder: Path) -> None:
    """Remove what killed writers left in a folder; once a process, as it lists the folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name):
                with suppress(OSError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_S:
                        if entry.is_dir(follow_symlinks=False):
                            shutil.rmtree(entry.path)
                        else:
                            Path(entry.path).unlink()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows opens no folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def by_lines(document: Mapping[str, Any]) -> str:
    """A document as JSON: a line for each key, and for each item of a list."""

    def line(value: object) -> str:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    def lines(value: object) -> str:
        listed = isinstance(value, list | tuple) and value
        return "[\n" + ",\n".join(map(line, listed)) + "\n]" if listed else line(value)

    return "{\n" + ",\n".join(f"{line(k)}: {lines(v)}" for k, v in document.items()) + "\n}\n"


def finite(value: object) -> object:
    """The same value for JSON, its numbers that are not finite None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def contents(path: Path) -> bytes:
    """The bytes of a file. Raises InputError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror})") from None


def json_value(text: bytes | str, where: object, *, lenient: bool = False) -> Any:
    """What JSON text says; InputError begins with `where`.

    Refused besides what is no JSON: what two programs may read in two ways (a key that stands twice
    in an object), and what cannot be kept (half a surrogate pair, an integer beyond all floats).

    lenient: NaN and Infinity, which are no JSON but which other programs write, are taken.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(
            text,
            parse_constant=None if lenient else _no_number,
            parse_int=_integer,
            object_pairs_hook=_object,
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # a ValueError where half a pair stands
    except (ValueError, RecursionError) as problem:  # bad UTF-8, bad JSON, cut off
        raise InputError(f"{where}: not JSON ({problem})") from None
    return value


_SURROGATE = re.compile(r"\\u[dD][89abAB]")
_DIGITS = 308
"""Of the largest integers that are all within the range of floats."""


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r:.60} stands twice in an object")
    return made
