"""Reading a file: what it holds, in its shape, or an InputError that says what is wrong with it."""

import os
import re
import stat
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, FailFast, ValidationError

from actprune_common.errors import InputError
from actprune_common.files import contents, json_value
from actprune_common.validation import first_error

Made = TypeVar("Made")
Model = TypeVar("Model", bound=BaseModel)
Item = TypeVar("Item")


class _First(FailFast):
    def __hash__(self) -> int:  # which an optional type needs
        return hash(_First)


Several = Annotated[list[Item], _First()]
"""A list that is refused at its first wrong item: the errors of a million would fill the memory."""
MOST_ERRORS = 10_000
"""That are made into messages, of which the first is told."""
LARGEST = 2**26
"""Bytes of a file that is read at all; in memory it takes some twenty times as much."""
ASSIGNED = re.compile(rb"\s*window\.\w+\s*=\s*")
"""How JavaScript begins that is JSON with a name (github-action-benchmark's data.js)."""
MESSAGES = re.compile(rb'\s*\{"reason"')
"""How a stream of messages begins, a JSON object on each line (cargo-criterion's)."""


def validated(where: object, validate: Callable[[Any], Made], given: Any) -> Made:
    """What pydantic makes of it. InputError begins with `where` and names the first wrong field."""
    try:
        return validate(given)
    except ValidationError as problem:
        count = problem.error_count()
        told = first_error(problem) if count < MOST_ERRORS else f"{count} values of a wrong type"
        raise InputError(f"{where}: {told}") from None


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; of a stream of messages, their list as `messages`.

    Raises InputError for anything else, and where `regular` does.
    """
    text = regular(path)
    if MESSAGES.match(text):
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        return {"messages": [json_value(line, f"{path}: line {number}") for number, line in lines]}
    if assigned := ASSIGNED.match(text):
        text = text[assigned.end() :].rstrip().removesuffix(b";")
    document = json_value(text, path, lenient=True)
    if not isinstance(document, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(document).__name__}")
    return document


def regular(path: Path) -> bytes:
    """The bytes of a regular file of at most LARGEST bytes.

    Raises InputError for what is neither, a pipe or a device among them, without waiting for it.
    """
    try:
        with FileIO(path, opener=_open_at_once) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise InputError(f"{path}: expected a regular file, got a pipe or a device")
            if about.st_size > LARGEST:
                raise InputError(f"{path}: expected at most {LARGEST} bytes, got {about.st_size}")
            return file.readall()
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror})") from None


def read(path: Path, model: type[Model]) -> Model:
    """A JSON file as a model. Raises InputError, which names the file and the field."""
    return validated(path, model.model_validate_json, contents(path))


def _open_at_once(path: str, flags: int) -> int:
    """A pipe without a writer would be waited for, but for this flag."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def compiled(pattern: str) -> "re.Pattern[str]":
    """A regular expression. Raises InputError for what is none."""
    try:
        return re.compile(pattern)
    except re.error as problem:
        told = f"no regular expression: {problem}, got {pattern!r}"
        raise InputError(f"--benchmarks: {told}") from None
