"""Reading a file: what it holds, in its shape, or an InputError that says what is wrong with it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel, ValidationError

from actprune_common.errors import InputError
from actprune_common.validation import first_error

Made = TypeVar("Made")
Model = TypeVar("Model", bound=BaseModel)
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


def json_value(path: Path) -> Any:
    """What a JSON file holds. Raises InputError for what is none."""
    held = contents(path)
    try:
        return json.loads(held.decode())
    except (ValueError, RecursionError) as problem:  # bad UTF-8, bad JSON, cut off
        raise InputError(f"{path}: not JSON: {problem}") from None


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises InputError for anything else."""
    document = json_value(path)
    if not isinstance(document, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(document).__name__}")
    return document


def read(path: Path, model: type[Model]) -> Model:
    """A JSON file as a model. Raises InputError, which names the file and the field."""
    return validated(path, model.model_validate_json, contents(path))
