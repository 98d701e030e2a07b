"""A folder that is ours to fill again: it holds a list of what we put there, and nothing else goes.

The files are made elsewhere first, so that what refuses has touched nothing.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from actprune_common.errors import InputError, expected
from actprune_common.files import contents, json_value, remove_stale, temporary_name, write_whole

MARKER = ".actprune-ci-publish.json"
"""The list, in the folder."""


@contextmanager
def refilled(out: Path) -> Iterator[Path]:
    """A folder to fill, whose files take the place of those of an earlier time when all went well.

    Files that were made earlier and are not any more go; files of others stay. Raises InputError,
    with nothing touched, unless `out` is new, empty, or of an earlier time, and where a file of
    somebody else has the name of a new one.
    """
    earlier = _listed(out)
    out = out.resolve()  # a link's own folder, and a parent of `.`
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(out.parent)
        making = out.parent / temporary_name(out.name)
        making.mkdir()
        try:
            yield making
            _put(making, out, earlier)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    except OSError as problem:
        raise InputError(f"{out}: cannot be written ({problem.strerror or problem})") from None


def _put(making: Path, out: Path, earlier: set[str]) -> None:
    made = {path.relative_to(making).as_posix() for path in making.rglob("*") if path.is_file()}
    foreign = [
        name
        for name in sorted(made | earlier)
        if _no_folder_above(out, name) or (name not in earlier and os.path.lexists(out / name))
    ]
    if foreign:
        raise expected(f"{out}", "no file of that name but its own", ", ".join(foreign[:5]))
    _list(out, made | earlier)  # all that may be there, should this be cut off
    for name in sorted(made):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (making / name).replace(out / name)
    for name in sorted(earlier - made):
        with suppress(FileNotFoundError):
            (out / name).unlink()
        with suppress(OSError):  # others' files are in it, or it is gone
            for folder in (out / name).relative_to(out).parents[:-1]:
                (out / folder).rmdir()
    _list(out, made)


def _no_folder_above(out: Path, name: str) -> bool:
    """Whether a file or a link, which are not ours, is where a folder goes."""
    *above, _ = PurePosixPath(name).parents
    return any(
        os.path.lexists(out / each) and ((out / each).is_symlink() or not (out / each).is_dir())
        for each in above
    )


def _list(out: Path, names: set[str]) -> None:
    document = {"schema": 1, "files": sorted(names)}
    write_whole(out / MARKER, json.dumps(document, ensure_ascii=False, indent=0) + "\n")


def _listed(out: Path) -> set[str]:
    """What an earlier time put there. Raises InputError for a folder that is not ours."""
    what = "a new or empty folder, or one that publish made"
    if not os.path.lexists(out):
        return set()
    if not out.is_dir():
        raise expected(f"{out}", what, "a file")
    there = sorted(entry.name for entry in out.iterdir())
    if MARKER not in there:
        if there:
            raise expected(f"{out}", what, f"one with {', '.join(there[:5])}")
        return set()
    document = json_value(contents(out / MARKER), out / MARKER)
    files = document.get("files") if isinstance(document, dict) else None
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise expected(f"{out / MARKER}", "a list of files", "something else")
    for name in files:
        if PurePosixPath(name).is_absolute() or {"..", ""} & set(name.split("/")):
            raise expected(f"{out / MARKER}", "names of files in the folder", repr(name))
    return set(files)
