"""Strict YAML: every key is known, every value is checked, and what is wrong names its line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from actprune_common.errors import InputError

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[str | int, ...]


def load(path: Path, model: type[Model]) -> Model:
    """The YAML file at `path` as a `model`; an empty file has every default.

    Raises InputError `FILE:LINE: key: problem` for bad YAML, a key given twice, an unknown key (the
    known ones are listed) or a bad value, and `FILE: problem` where it cannot be read. Aliases are
    refused.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as problem:
        raise InputError(f"{path}: cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise InputError(f"{path}: expected UTF-8 text: {problem.reason}") from None
    values, lines = _parsed(path, text)
    try:
        return model.model_validate({} if values is None else values)
    except ValidationError as problem:
        error = problem.errors()[0]
    place: Place = error["loc"]
    line = lines[max((p for p in lines if p == place[: len(p)]), key=len)]
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
    raise InputError(f"{path}:{line}: {key}{': ' * bool(key)}{_explained(model, error)}")


def _parsed(path: Path, text: str) -> tuple[Any, dict[Place, int]]:
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise InputError(f"{path}:{line}: *{event.anchor}: aliases are refused")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Place, int] = {(): 1}
        for place, line in _places(node):
            if place in lines:
                twice = f"given twice (also on line {lines[place]})"
                raise InputError(f"{path}:{line}: {place[-1]}: {twice}")
            lines[place] = line
        return yaml.safe_load(text), lines
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = mark.line + 1 if mark else 1
        raise InputError(f"{path}:{line}: not YAML: {problem.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as problem:
        if isinstance(problem, InputError):
            raise
        raise InputError(f"{path}: not YAML: {' '.join(str(problem).split())}") from None


def _places(node: yaml.Node | None, at: Place = ()) -> Iterator[tuple[Place, int]]:
    """Each key and list item of a document, with its line."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*at, str(key.value)), key.start_mark.line + 1
            yield from _places(value, (*at, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*at, index), item.start_mark.line + 1
            yield from _places(item, (*at, index))


def _explained(model: type[BaseModel], error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return f"unknown key; known are {', '.join(_known(model, error['loc']))}"
    if error["type"] == "missing":
        return "this key is required"
    if error["type"] == "value_error":  # our own validators say what came
        return error["msg"].removeprefix("Value error, ")
    message = error["msg"].replace("Input should be", "expected").replace("Input should", "should")
    return f"{message}, got {error['input']!r:.60}"


def _known(model: type[BaseModel], place: Place) -> list[str]:
    for part in place[:-1]:
        field = model.model_fields.get(part) if isinstance(part, str) else None
        if field is not None:
            model = next(_models(field.annotation), model)
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
