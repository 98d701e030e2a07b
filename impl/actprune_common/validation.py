"""What pydantic refuses, told in one line that says which key, what was expected and what came."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

Place = tuple[str | int, ...]


def first_error(problem: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first error of a validation in one line, `KEY: expected ..., got ...`.

    model: whose keys are listed where one is unknown.
    """
    error = problem.errors()[0]
    key, message = named(error["loc"]), error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden" and model is not None:
        message = f"unknown key; known are {', '.join(_known_keys(model, error['loc']))}"
    elif error["type"] in ("missing", "missing_argument"):
        message = "this key is required"
    elif error["type"] == "value_error":  # our own validators say what came
        message = message.removeprefix(f"{key}: ")
    else:
        message = message.replace("Input should be", "expected").replace("Input should", "should")
        message += f", got {short(error['input'])}"
    return f"{key}: {message}" if key else message


def named(place: Place) -> str:
    """A place in a document as people write it: `rules[0].metric`."""
    return "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in place).lstrip(".")


def short(value: object) -> str:
    """A value in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _known_keys(model: type[BaseModel], place: Place) -> list[str]:
    for part in place[:-1]:
        field = model.model_fields.get(part) if isinstance(part, str) else None
        if field is not None:
            model = next(_models_in(field.annotation), model)
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
