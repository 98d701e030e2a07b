"""What a night does: a strict YAML list of steps, whose commands have placeholders.

docs/nightly.md lists every key. Words in brackets go together: they are left out where a
placeholder in them has no value. Where one of them has a `*` it is a pattern of files: they are
repeated for each file that it fits, and left out where it fits none.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from actprune_ci.judge.policy import Strict
from actprune_common.errors import InputError
from actprune_common.strict_yaml import load_yaml

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
    "repeat": "a regular expression of the figures that the gate wants repeated",
}
PLACE = re.compile(r"\{([a-z_]*)\}")
Values = Mapping[str, str]


class MissingError(InputError):
    """A placeholder has no value tonight; the message says which and why."""


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


def _words(words: str | tuple[str, ...]) -> str | tuple[str, ...]:
    for word in (words,) if isinstance(words, str) else words:
        for name in PLACE.findall(word):
            if name not in PLACEHOLDERS:
                known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
                raise ValueError(f"unknown placeholder {{{name}}}; known are {known}")
    return words


Words = Annotated[str | tuple[str, ...], AfterValidator(_words)]
"""A word of a command, or several that go together."""


def _with_a_program(run: tuple[Words, ...]) -> tuple[Words, ...]:
    if not isinstance(run[0], str):
        raise ValueError("expected a program first, got words that may be left out")
    return run


def _in_the_folder(makes: tuple[Words, ...]) -> tuple[Words, ...]:
    for path in makes:
        if not isinstance(path, str) or not path.startswith("{out}/") or ".." in path:
            raise ValueError(f"expected files in {{out}}/, got {path!r}")
    return makes


class NightStep(Strict):
    """One command of the night."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)
    """Also of its log."""
    run: Annotated[tuple[Words, ...], Field(min_length=1), AfterValidator(_with_a_program)]
    makes: Annotated[tuple[Words, ...], AfterValidator(_in_the_folder)] = ()
    """Files in {out} that it writes, removed before it runs: none is left of an earlier try."""
    timeout: float = Field(3600, gt=0, allow_inf_nan=False)
    """Seconds; then the step and all that it started are ended."""
    retries: int = Field(0, ge=0, le=10)
    """How often it is tried again after a failure."""
    needs: tuple[str, ...] = ()
    """Steps before it without whose success it is not run."""
    when: Literal["any", "cuda", "github"] = "any"
    """cuda: only with a GPU; github: only with `gh` and a token for it."""
    failure: Literal["error", "warning"] = "error"
    """What its failure means: an error makes the night fail, a warning is shown."""
    verdict: bool = False
    """Whether its exit code is a verdict, as that of `actprune-ci gate`; the last one counts."""


def _ordered(steps: tuple[NightStep, ...]) -> tuple[NightStep, ...]:
    before: set[str] = set()
    for step in steps:
        if step.name in before:
            raise ValueError(f"the name {step.name} is given twice")
        for need in step.needs:
            if need not in before:
                raise ValueError(f"{step.name} needs {need}, which is no step before it")
        before.add(step.name)
    return steps


class Night(Strict):
    """All steps, in order."""

    store: Path = Path("results/store")
    """The store's folder, from the repository's own."""
    gpus: int = Field(0, ge=0)
    """How many GPUs there must be: with fewer the machine is broken."""
    steps: Annotated[tuple[NightStep, ...], Field(min_length=1), AfterValidator(_ordered)]


def read(path: Path) -> Night:
    """The night in a YAML file. Raises InputError `FILE:LINE: key: problem`."""
    return load_yaml(path, Night)
