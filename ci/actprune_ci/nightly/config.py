"""What a night does: a strict YAML list of steps (docs/nightly.md lists every key)."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from actprune_ci.judge.policy import Strict
from actprune_ci.nightly.placeholders import PLACEHOLDERS, unknown
from actprune_common.strict_yaml import load_yaml

When = Literal["any", "cuda", "github"]
Failure = Literal["error", "warning"]


def _words(words: str | tuple[str, ...]) -> str | tuple[str, ...]:
    for word in (words,) if isinstance(words, str) else words:
        for name in unknown(word):
            known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
            raise ValueError(f"unknown placeholder {{{name}}}; known are {known}")
    return words


Words = Annotated[str | tuple[str, ...], AfterValidator(_words)]
"""A word of a command, or several that go together (actprune_ci.nightly.placeholders)."""


class NightStep(Strict):
    """One command of the night."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)
    """Also of its log."""
    run: tuple[Words, ...] = Field(min_length=1)
    makes: tuple[Words, ...] = ()
    """Files in {out} that it writes, removed before it runs: none is left of an earlier try."""
    timeout: float = Field(3600, gt=0, allow_inf_nan=False)
    """Seconds; then the step and all that it started are ended."""
    retries: int = Field(0, ge=0, le=10)
    """How often it is tried again after a failure."""
    needs: tuple[str, ...] = ()
    """Steps before it without whose success it is not run."""
    when: When = "any"
    """cuda: only with a GPU; github: only with `gh` and a token for it."""
    failure: Failure = "error"
    """What its failure means: an error makes the night fail, a warning is shown."""
    verdict: bool = False
    """Whether its exit code is a verdict, as that of `actprune-ci gate`; the last one counts."""

    @field_validator("run")
    @classmethod
    def _has_a_program(cls, run: tuple[Words, ...]) -> tuple[Words, ...]:
        if not isinstance(run[0], str):
            raise ValueError("expected a program first, got words that may be left out")
        return run

    @field_validator("makes")
    @classmethod
    def _in_the_folder(cls, makes: tuple[Words, ...]) -> tuple[Words, ...]:
        for path in makes:
            if not isinstance(path, str) or not path.startswith("{out}/") or ".." in path:
                raise ValueError(f"expected files in {{out}}/, got {path!r}")
        return makes


class Night(Strict):
    """All steps, in order."""

    store: Path = Path("results/store")
    """The store's folder, from the repository's own."""
    gpus: int = Field(0, ge=0)
    """How many GPUs there must be: with fewer the machine is broken."""
    steps: tuple[NightStep, ...] = Field(min_length=1)

    @field_validator("steps")
    @classmethod
    def _ordered(cls, steps: tuple[NightStep, ...]) -> tuple[NightStep, ...]:
        before: set[str] = set()
        for step in steps:
            if step.name in before:
                raise ValueError(f"the name {step.name} is given twice")
            for need in step.needs:
                if need not in before:
                    raise ValueError(f"{step.name} needs {need}, which is no step before it")
            before.add(step.name)
        return steps


def read(path: Path) -> Night:
    """The night in a YAML file. Raises InputError `FILE:LINE: key: problem`."""
    return load_yaml(path, Night)
