"""Strict YAML: every key is known, every value is checked, and what is wrong names its line."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from actprune_common.errors import InputError

Model = TypeVar("Model", bound=BaseModel)
Lines = dict[tuple[str | int, ...], int]


def load_yaml(path: Path | str, model: type[Model]) -> Model:
    """The YAML file at `path` as a `model`.

    Raises InputError `FILE:LINE: key: problem` on bad YAML, a key given twice, an unknown key (the
    known ones are listed) or a bad value; `FILE: problem` where the file cannot be read. Aliases
    are refused. `1e-3` is a number, as in YAML 1.2.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror})") from None
    except UnicodeDecodeError as problem:
        raise InputError(f"{path}: expected UTF-8 text ({problem.reason})") from None
    values, lines = _read(path, text)
    if not isinstance(values, dict):
        raise InputError(f"{path}:1: expected keys and values, got {_short(values)}")
    return _validate(model, values, str(path), lines)


def check(model: type[Model], values: Mapping[str, Any], where: str = "") -> Model:
    """`model` from plain values, such as command line options.

    Raises InputError `WHERE: key: problem`, one line, where pydantic would raise many.
    """
    return _validate(model, values, where, None)


def _validate(
    model: type[Model], values: Mapping[str, Any], where: str, lines: Lines | None
) -> Model:
    try:
        return model.model_validate(dict(values))
    except ValidationError as problem:
        error = problem.errors()[0]
    if lines is not None:
        where = f"{where}:{_line(error['loc'], lines)}"
    key = ".".join(map(str, error["loc"]))
    message = _explain(model, error).removeprefix(f"{key}: ")
    parts = [part for part in (where, key, message) if part]
    raise InputError(": ".join(parts))


def _explain(model: type[BaseModel], error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return f"unknown key; known are {', '.join(_known_keys(model, error['loc']))}"
    if error["type"] == "missing":
        return "this key is required"
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if error["type"] == "value_error":  # our own validators say what came
        return message
    return f"{message}, got {_short(error['input'])}"


def _known_keys(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    for part in loc[:-1]:
        field = model.model_fields.get(part) if isinstance(part, str) else None
        if field is not None:
            model = next(iter(_models_in(field.annotation)), model)
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


def _line(loc: tuple[str | int, ...], lines: Lines) -> int:
    """The line of the deepest part of `loc` that the file has."""
    found: tuple[str | int, ...] = ()
    for part in loc:  # loc also holds parts of no key, such as the arms of a union
        if (*found, part) in lines:
            found = (*found, part)
    return lines[found]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, with 1e-3 a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _read(path: Path, text: str) -> tuple[Any, Lines]:
    lines: Lines = {(): 1}
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise InputError(f"{path}:{line}: *{event.anchor}: aliases are not supported")
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return {}, lines
        _collect_lines(path, node, (), lines)
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = mark.line + 1 if mark else 1
        raise InputError(f"{path}:{line}: not valid YAML: {problem.problem}") from None
    except yaml.YAMLError as problem:
        reason = " ".join(str(problem).split())
        raise InputError(f"{path}: not valid YAML: {reason}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply") from None
    except (ValueError, OverflowError) as problem:
        if isinstance(problem, InputError):
            raise
        raise InputError(f"{path}: not valid YAML: {problem}") from None


def _collect_lines(path: Path, node: yaml.Node, at: tuple[str | int, ...], lines: Lines) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise InputError(f"{path}:{line}: expected a plain key")
            here = (*at, key_node.value)
            if here in lines:
                name = ".".join(map(str, here))
                raise InputError(f"{path}:{line}: {name}: given twice (also on line {lines[here]})")
            lines[here] = line
            _collect_lines(path, value_node, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*at, index)] = item.start_mark.line + 1
            _collect_lines(path, item, (*at, index), lines)
