"""What a comparison is: its YAML file, and the kernels and training runs that it describes."""

from itertools import product
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field

from actprune.formats import parse
from actprune.strategies.grammar import read
from actprune_bench.measure.tolerance import TOLERANCE
from actprune_bench.training.config import Seed, Shared, TrainConfig, one_of
from actprune_common.errors import InputError
from actprune_common.strict_yaml import StrictModel

DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in TOLERANCE}


class ShapeConfig(StrictModel):
    """One layer: X (rows, features), dY (rows, out_features)."""

    name: str
    rows: int = Field(ge=1)
    features: int = Field(ge=1)
    out_features: int = Field(ge=1)


# ResMLP-S24 at 224 px: 196 patches of 384 channels, 32 images in a batch.
S24 = [
    ShapeConfig(name="fc1", rows=6272, features=384, out_features=1536),
    ShapeConfig(name="fc2", rows=6272, features=1536, out_features=384),
    ShapeConfig(name="tokens", rows=12288, features=196, out_features=196),
]


class HeatMap(StrictModel):
    """The grid of block-sparse grad_weight measurements: every block at every sparsity."""

    blocks: list[str] = Field(default=["1x32", "1x64", "8x32", "32x32", "64x64"])
    sparsities: list[float] = Field(default=[0.5, 0.8, 0.9, 0.95, 0.99])
    samples: int = Field(default=3, ge=1)

    def model_post_init(self, _: Any, /) -> None:
        """Raise InputError where a block or a sparsity is none."""
        self.specs()

    def specs(self) -> list[str]:
        """The grid as specs."""
        grid = product(self.blocks, self.sparsities)
        return [parse(f"bsr:block={block},sparsity={s}").spec for block, s in grid]


def _named_apart(shapes: list[ShapeConfig]) -> list[ShapeConfig]:
    names = [shape.name for shape in shapes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"expected a name of its own for each, got {twice!r} twice")
    return shapes


def _usable(device: str) -> str:
    if device not in ("cpu", "cuda"):
        raise InputError(f"expected cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("expected a CUDA device that torch can use, found none")
    return device


def _each_once(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise InputError(f"expected each once, got {seeds}")
    return seeds


def _canonical(formats: list[str]) -> list[str]:
    return list(dict.fromkeys(["dense", *(read(spec).spec for spec in formats)]))


class KernelPart(StrictModel):
    """Which kernels are measured, and how often."""

    shapes: Annotated[list[ShapeConfig], AfterValidator(_named_apart)] = Field(S24, min_length=1)
    samples: int = Field(default=5, ge=1)
    dtype: Annotated[str, one_of(DTYPES)] = "float32"
    device: Annotated[str, AfterValidator(_usable)] = "cpu"
    heat_map: HeatMap | None = HeatMap()


class TrainingPart(Shared):
    """Which training runs are compared: the keys of `actprune train`, but for the specs' and seeds'
    sake without spec, seed and threads."""

    elsewhere: ClassVar = {
        "spec": "formats",
        "seed": "seeds",
        "threads": "threads, beside training",
    }
    epochs: int = Field(default=1, ge=1, le=100_000)
    device: Literal["cpu"] = "cpu"  # where the peaks are measured
    seeds: Annotated[list[Seed], AfterValidator(_each_once)] = Field(default=[0], min_length=1)


class CompareConfig(StrictModel):
    """A comparison, as in its YAML file; `kernels: null` or `training: null` leaves a part out."""

    formats: Annotated[list[str], AfterValidator(_canonical)] = Field(
        default=[
            "dense",
            "coo:sparsity=0.9",
            "csr:sparsity=0.9",
            "bsr:block=32x32,sparsity=0.9",
            "bsr:block=1x32,sparsity=0.9",
            "bsr:block=1x32,sparsity=0.9,select=priority",
            "lean+bsr:block=1x128,sparsity=0.5,select=priority,values=int4",
            "checkpoint+dense",
        ]
    )
    threads: int | None = Field(default=None, ge=1, le=1024)
    kernels: KernelPart | None = KernelPart()
    training: TrainingPart | None = TrainingPart()

    def model_post_init(self, _: Any, /) -> None:
        """Raise InputError where nothing is left to compare."""
        if self.kernels is None and self.training is None:
            raise InputError("kernels, training: expected at least one of them, got null for both")

    def values(self) -> dict[str, Any]:
        """As in a YAML file."""
        return self.model_dump(mode="json", exclude={"training": set(TrainingPart.elsewhere)})

    def runs(self) -> list[TrainConfig]:
        """The training runs: every format for every seed."""
        part = self.training
        if part is None:
            return []
        rest = part.model_dump(exclude={"seeds", *part.elsewhere}) | {"threads": self.threads}
        pairs = product(part.seeds, self.formats)
        return [TrainConfig(**rest, spec=spec, seed=seed) for seed, spec in pairs]
