"""What a sweep is: its YAML file, and the grid of training runs that it describes."""

import re
from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from actprune.strategies.grammar import read
from actprune_bench.data import check_source
from actprune_bench.models import MODELS
from actprune_bench.training.config import Seed, Shared, TrainConfig
from actprune_common.errors import InputError, expected
from actprune_common.sizes import SIZE, parse_bytes
from actprune_common.strict_yaml import StrictModel

Failure = Literal["failed", "timeout", "memory", "lost"]
Retry = Annotated[int, Field(ge=0, le=1000)]
_GRID = {"spec": "formats", "model": "models", "data": "data", "seed": "seeds"}
_HOLES = {"{sparsity}": "sparsities", "{block}": "blocks"}


def _a_size(text: str) -> str:
    if parse_bytes(text, "memory") < 1:
        raise expected("memory", SIZE, repr(text))
    return text


def _known(models: list[str]) -> list[str]:
    for name in models:
        if name not in MODELS:
            raise InputError(f"expected some of {', '.join(MODELS)}, got {name!r}")
    return models


def _sources(data: list[str]) -> list[str]:
    for source in data:
        check_source(source)
    return data


class Retries(StrictModel):
    """How often a cell is tried again, by what became of it.

    failed: it ended with an error; timeout, memory: a limit ended it; lost: nobody saw it end,
    because the sweep or the machine that ran it was gone.
    """

    failed: Retry = 1
    timeout: Retry = 0
    memory: Retry = 0
    lost: Retry = 3


class Common(Shared):
    """What all cells share: the keys of `actprune train` that are not of the grid."""

    elsewhere: ClassVar = {key: f"{place}, beside training" for key, place in _GRID.items()}


class SweepConfig(StrictModel):
    """A sweep, as in its YAML file: the grid, what its cells share, their limits and retries."""

    formats: list[str] = Field(min_length=1)
    """Specs in which {sparsity} and {block} may stand; dense is always there."""
    sparsities: list[float] = Field(default=[])
    blocks: list[int | str] = Field(default=[])
    models: Annotated[list[str], AfterValidator(_known)] = Field(["resmlp_tiny"], min_length=1)
    data: Annotated[list[str], AfterValidator(_sources)] = Field(["embedded"], min_length=1)
    seeds: list[Seed] = Field(default=[0], min_length=1)
    training: Common = Common()
    timeout_s: float | None = Field(default=None, gt=0)
    """Of one attempt, by the clock on the wall."""
    memory: Annotated[str, AfterValidator(_a_size)] | None = None
    """Of the resident memory of a cell and its children, such as 4GiB."""
    gpus: float = Field(default=0, ge=0, le=1024)
    """That Ray keeps for a cell."""
    retries: Retries = Retries()
    accepted: list[Failure] = Field(default=[])
    """Outcomes beside done with which the sweep still counts as good."""

    def model_post_init(self, _: Any, /) -> None:
        """Raise InputError where a template lacks its values, or values their template."""
        for hole, key in _HOLES.items():
            wanting = [text for text in self.formats if hole in text]
            if wanting and not getattr(self, key):
                raise InputError(f"{key}: expected at least one for {hole} in {wanting[0]!r}")
            if getattr(self, key) and not wanting:
                raise InputError(f"{key}: no format has {hole} in it; remove {key}, or use it")
        self.specs()

    @property
    def memory_bytes(self) -> int | None:
        """The limit of memory."""
        return None if self.memory is None else parse_bytes(self.memory)

    def specs(self) -> list[str]:
        """The specs of every (model, data, seed), canonical and each once, dense first."""
        filled = (spec for text in self.formats for spec in self._filled(text))
        return list(dict.fromkeys(["dense", *filled]))

    def cells(self) -> list[TrainConfig]:
        """The grid: model by model, data by data, seed by seed, dense first. Each stands once."""
        rest = self.training.model_dump(exclude=set(_GRID))
        keys = ("model", "data", "seed", "spec")
        points = dict.fromkeys(product(self.models, self.data, self.seeds, self.specs()))
        return [TrainConfig(**rest | dict(zip(keys, point, strict=True))) for point in points]

    def values(self) -> dict[str, Any]:
        """As in a YAML file."""
        return self.model_dump(mode="json", exclude={"training": set(_GRID)})

    def _filled(self, text: str) -> Iterator[str]:
        """The specs of a template, canonical: every combination of what it has holes for."""
        unknown = [hole for hole in re.findall(r"\{.*?\}", text) if hole not in _HOLES]
        if unknown:
            known, got = " and ".join(_HOLES), f"{unknown[0]} in {text!r}"
            raise InputError(f"formats: {known} may stand in a format, got {got}")
        for sparsity, block in product(self.sparsities or [0.0], self.blocks or [""]):
            spec = text.replace("{sparsity}", str(sparsity)).replace("{block}", str(block))
            try:
                yield read(spec).spec
            except InputError as problem:
                raise InputError(f"formats: {spec}: {problem}") from None
