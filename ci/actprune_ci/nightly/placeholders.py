"""The words of a step's command, with their placeholders filled in.

Words in brackets go together: they are left out where a placeholder in them has no value. Where
one of them has a `*` it is a pattern of files: they are repeated for each file that it fits, and
left out where it fits none.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from actprune_common.errors import InputError

PLACEHOLDERS = {
    "out": "the night's folder",
    "store": "the store",
    "repo": "the repository",
    "commit": "the commit measured",
    "short": "its first 8 digits, as asv names its files",
    "branch": "the branch checked out, or HEAD",
    "base": "the commit compared with",
    "machine": "the machine's fingerprint",
    "python": "the interpreter",
    "repeat": "a regular expression of the benchmarks that the gate wants repeated",
}
PLACE = re.compile(r"\{([a-z_]*)\}")
Values = Mapping[str, str]


class MissingError(InputError):
    """A placeholder has no value tonight; the message says which and why."""


def unknown(word: str) -> list[str]:
    """The placeholders of a word that there are not."""
    return [name for name in PLACE.findall(word) if name not in PLACEHOLDERS]


def expand(
    words: Sequence[str | Sequence[str]], values: Values, why: Mapping[str, str]
) -> list[str]:
    """The command. Raises MissingError, with the reason in `why`, where a value is missing."""
    made: list[str] = []
    for word in words:
        made += [_filled(word, values, why)] if isinstance(word, str) else _group(word, values)
    return made


def _filled(word: str, values: Values, why: Mapping[str, str]) -> str:
    for name in PLACE.findall(word):
        if name not in values:
            raise MissingError(why.get(name, f"{{{name}}} has no value"))
    return PLACE.sub(lambda found: values[found[1]], word)


def _group(words: Sequence[str], values: Values) -> Iterator[str]:
    try:
        filled = [_filled(word, values, {}) for word in words]
    except MissingError:
        return
    patterns = [word for word in filled if "*" in word]
    if not patterns:
        yield from filled
    for pattern in patterns[:1]:
        for path in _fitting(Path(pattern), Path(values["repo"])):
            yield from (path if word == pattern else word for word in filled)


def _fitting(pattern: Path, repo: Path) -> list[str]:
    """The files, as text, that a pattern from the repository's folder fits."""
    absolute = repo / pattern
    inside = str(absolute)[1:].replace("[", "[[]")  # only * is a pattern
    return sorted(str(path) for path in Path(absolute.anchor).glob(inside))
