"""Strict YAML: every key is known, every value is checked, and what is wrong names its line."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from actprune_common.errors import InputError
from actprune_common.files import contents
from actprune_common.validation import Place, first_error, named, short

Model = TypeVar("Model", bound=BaseModel)
Lines = dict[Place, int]


class StrictModel(BaseModel):
    """What a file holds: known keys alone, of the types that they are said to be."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def load_yaml(path: Path | str, model: type[Model]) -> Model:
    """The YAML file at `path` as a `model`; an empty file has every default.

    Raises InputError `FILE:LINE: key: problem` on bad YAML, a key given twice, an unknown key (the
    known ones are listed) or a bad value; `FILE: problem` where the file cannot be read. Aliases
    are refused. `1e-3` is a number, as in YAML 1.2.
    """
    text = contents(Path(path))
    try:
        values, lines = _read(text.decode())
    except UnicodeDecodeError as problem:
        raise InputError(f"{path}: expected UTF-8 text ({problem.reason})") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply") from None
    except InputError as problem:  # with its line
        raise InputError(f"{path}:{problem}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as problem:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(problem).split())}") from None
    try:
        return model.model_validate(values)
    except ValidationError as problem:
        line = _line(problem.errors()[0]["loc"], lines)
        raise InputError(f"{path}:{line}: {first_error(problem, model)}") from None


def check(model: type[Model], values: Mapping[str, Any], where: str = "") -> Model:
    """`model` from plain values, such as command line options.

    Raises InputError `WHERE: key: problem`, one line, where pydantic would raise many.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as problem:
        told = first_error(problem, model)
    raise InputError(f"{where}: {told}" if where else told)


def _line(place: Place, lines: Lines) -> int:
    """The line of the deepest part of `place` that the file has."""
    found: Place = ()
    for part in place:  # it also holds parts of no key, such as the arms of a union
        if (*found, part) in lines:
            found = (*found, part)
    return lines[found]


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, with 1e-3 a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _read(text: str) -> tuple[dict[str, Any], Lines]:
    """The values of a document, and the line of each key and item; InputError `LINE: problem`."""
    lines: Lines = {(): 1}
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise InputError(f"{line}: *{event.anchor}: aliases are not supported")
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return {}, lines
        for place, line in _places(node):
            if place in lines:
                twice = f"given twice (also on line {lines[place]})"
                raise InputError(f"{line}: {named(place)}: {twice}")
            lines[place] = line
        values = loader.construct_document(node)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = mark.line + 1 if mark else 1
        raise InputError(f"{line}: not valid YAML: {problem.problem}") from None
    if not isinstance(values, dict):
        raise InputError(f"1: expected keys and values, got {short(values)}")
    return values, lines


def _places(node: yaml.Node, at: Place = ()) -> Iterator[tuple[Place, int]]:
    """Each key and list item of a document, with its line."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{key.start_mark.line + 1}: expected a plain key")
            yield (*at, key.value), key.start_mark.line + 1
            yield from _places(value, (*at, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*at, index), item.start_mark.line + 1
            yield from _places(item, (*at, index))
