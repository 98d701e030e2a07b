"""Reading a file: what it holds, in its shape, or an InputError that says what is wrong with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from actprune_common.errors import InputError
from actprune_common.files import contents, json_value
from actprune_common.validation import first_error

Made = TypeVar("Made")
Model = TypeVar("Model", bound=BaseModel)


def validated(where: object, validate: Callable[[Any], Made], given: Any) -> Made:
    """What pydantic makes of it. InputError begins with `where` and names the first wrong field."""
    try:
        return validate(given)
    except ValidationError as problem:
        raise InputError(f"{where}: {first_error(problem)}") from None


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises InputError for anything else."""
    document = json_value(contents(path), path, lenient=True)
    if not isinstance(document, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(document).__name__}")
    return document


def read(path: Path, model: type[Model]) -> Model:
    """A JSON file as a model. Raises InputError, which names the file and the field."""
    return validated(path, model.model_validate_json, contents(path))
