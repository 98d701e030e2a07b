"""Files written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from actprune_common.errors import InputError


def write_whole(path: Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path`, replacing what was there, whole or not at all.

    Raises InputError where the file system refuses (no room, no permission); the old file stays.
    """
    with whole(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def whole(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """A file to write beside `path` that takes its place, synced to disk, when the block ends well.

    Without `overwrite` an existing `path` raises FileExistsError and is left as it was, even where
    two processes write it at once. Any other refusal of the file system is a InputError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.")
        os.close(handle)
    except OSError as problem:
        raise InputError(f"{path}: cannot be written: {problem.strerror}") from None
    beside = Path(name)
    try:
        yield beside
        _sync(beside)
        beside.chmod(0o644)
        if overwrite:
            beside.replace(path)
        else:
            os.link(beside, path)
        _sync(path.parent)
    except FileExistsError:
        raise
    except OSError as problem:
        raise InputError(f"{path}: cannot be written: {problem.strerror or problem}") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
