"""A format's options as text: `bsr:block=1x32,sparsity=0.9`, and back."""

import re
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

from actprune_common.errors import InputError

if TYPE_CHECKING:
    from actprune.formats.base import Format

_ALWAYS = ("block", "bits", "sparsity")  # what a reader wants to see even where it is the default


def write_spec(name: str, options: Any) -> str:
    """`name:option=value,...`: block and sparsity always, the others where they differ."""
    shown, first = [], {option: place for place, option in enumerate(_ALWAYS)}
    for field in sorted(fields(options), key=lambda field: first.get(field.name, len(first))):
        value = getattr(options, field.name)
        if field.name in _ALWAYS or value != field.default:
            text = "x".join(map(str, value)) if isinstance(value, tuple) else value
            shown.append(f"{field.name}={text}")
    return f"{name}:{','.join(shown)}".removesuffix(":")


def read_spec(text: str, formats: Mapping[str, Any]) -> "Format":
    """The format that `text` describes; raises InputError naming what is wrong in it."""
    if not isinstance(text, str):
        raise InputError(f"spec: expected text such as 'bsr:sparsity=0.9', got {text!r}")
    name, colon, rest = text.strip().partition(":")
    if name not in formats:
        raise InputError(f"spec: expected a format of {', '.join(formats)}, got {name!r}")
    kind = formats[name]
    known = {field.name: field for field in fields(kind)}
    if colon and not rest:
        raise InputError(f"spec: expected option=value after {name + ':'!r}, got nothing")
    options: dict[str, Any] = {}
    parts = rest.split(",") if rest else []
    if hasattr(kind, "positional"):  # options without a name come first
        options.update(kind.positional(parts.pop(0) if parts else ""))
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise InputError(f"spec: expected option=value, got {part!r} in {text!r}")
        if key not in known:
            names = ", ".join(known) or "none"
            raise InputError(f"spec: {name} takes the options {names}; got {key!r} in {text!r}")
        if key in options:
            raise InputError(f"spec: option {key!r} is given twice in {text!r}")
        options[key] = _read(known[key], value)
    made: Format = kind(**options)
    return made


def _read(field: "Field[Any]", text: str) -> object:
    if isinstance(field.default, tuple):
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
        if not match:
            raise InputError(f"{field.name}: expected a size such as 32 or 1x32, got {text!r}")
        height, width = match.groups()
        return int(height), int(width or height)
    kind = type(field.default)
    if kind is str:
        return text
    try:
        return float(text) if kind is float else int(text)
    except ValueError:
        what = "a number" if kind is float else "a whole number"
        raise InputError(f"{field.name}: expected {what}, got {text!r}") from None
