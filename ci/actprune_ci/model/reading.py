"""Reading a file: what it holds, in its shape, or an InputError that says what is wrong with it."""

from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from pydantic import ValidationError

from actprune_common.errors import InputError
from actprune_common.validation import first_error

Made = TypeVar("Made")
P = ParamSpec("P")


def contents(path: Path) -> bytes:
    """The bytes of a file. Raises InputError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as problem:
        raise InputError(f"{path}: cannot be read: {problem.strerror}") from None


def validated(
    where: object, validate: Callable[P, Made], *args: P.args, **kwargs: P.kwargs
) -> Made:
    """What pydantic makes of it. InputError begins with `where` and names the first wrong field."""
    try:
        return validate(*args, **kwargs)
    except ValidationError as problem:
        raise InputError(f"{where}: {first_error(problem)}") from None
