"""What one training run is: every key of its YAML file, with its range."""

import shlex
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from actprune.strategies.grammar import read
from actprune_bench.data import check_source
from actprune_bench.models import MODELS
from actprune_common.errors import InputError, expected
from actprune_common.strict_yaml import StrictModel

Count = Annotated[int, Field(ge=1)]


def _as_tuple(globs: Any) -> Any:
    globs = [globs] if isinstance(globs, str) else globs
    return tuple(globs) if isinstance(globs, list) else globs


Globs = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


def one_of(known: Collection[str]) -> AfterValidator:
    """The check that a text is one of those that are known."""

    def checked(name: str) -> str:
        if name not in known:
            raise InputError(f"expected one of {', '.join(known)}, got {name!r}")
        return name

    return AfterValidator(checked)


Model = Annotated[str, one_of(MODELS)]
Source = Annotated[str, AfterValidator(lambda source: check_source(source) and source)]
Spec = Annotated[str, AfterValidator(lambda spec: read(spec).spec)]
"""Made canonical."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class TrainConfig(StrictModel):
    """One training run. `strict_yaml.check(TrainConfig, {...})` gives errors of one line."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: Model = "resmlp_tiny"
    """resmlp_tiny, resmlp_s12, ..."""
    data: Source = "embedded"
    """embedded, fashion-mnist:DIR, cifar10:DIR or folder:DIR."""
    spec: Spec = "dense"
    """The format, such as bsr:sparsity=0.9."""
    include: Globs = ("*",)
    """Globs on the names of the linear layers that are pruned."""
    exclude: Globs = ()
    """Globs on the names of those of them that are not."""
    epochs: int = Field(default=3, ge=1, le=100_000)
    """Passes over the training images."""
    batch_size: Count = 128
    """Over all ranks, where torchrun starts several."""
    lr: float = Field(default=1.5e-2, gt=0, le=10)
    """The peak; it rises linearly over warmup_epochs and falls to 0 along a cosine. The default is
    for resmlp_tiny; the published models want about 1e-3."""
    weight_decay: float = Field(default=0.05, ge=0, le=10)
    """On matrices and convolutions; biases, affine parameters and LayerScale have none."""
    warmup_epochs: float = Field(default=0.5, ge=0)
    """How long the learning rate rises."""
    seed: Seed = 0
    """Of the weights, the order of the data and its augmentation."""
    augment: Literal["none", "crop-flip"] = "none"
    """none or crop-flip."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """Of torch on the CPU; torch's own choice where it is not given."""
    device: Literal["cpu", "cuda"] = "cpu"
    """cpu, or cuda: one GPU, under torchrun one for each rank of a machine."""
    limit_train: Count | None = None
    """So many training images at most, balanced over the classes."""
    limit_test: Count | None = None
    """The same of the test images."""
    checkpoint_every: Count = 200
    """Steps; there is a checkpoint at the end of every epoch too."""

    def model_post_init(self, _: Any, /) -> None:
        """Raise InputError where the learning rate would rise for longer than the run lasts."""
        if self.warmup_epochs > self.epochs:
            most = f"at most the {self.epochs} epochs"
            raise expected("warmup_epochs", most, f"{self.warmup_epochs:g}")

    @property
    def image_size(self) -> int:
        """Pixels per side that the model takes."""
        return MODELS[self.model].image_size

    def command(self) -> str:
        """The command that repeats this run, into a folder `run`: an option for each key that is
        not at its default."""
        words = ["actprune", "train", "--out", "run"]
        for key, value in self:
            if key == "spec" or value != type(self).model_fields[key].default:
                option = f"--{key.replace('_', '-')}"
                values = value if isinstance(value, tuple) else (value,)
                words += [word for item in values for word in (option, str(item))]
        return shlex.join(words)


class Shared(TrainConfig):
    """What several runs of a file have in common. A key that stands elsewhere in it is refused."""

    elsewhere: ClassVar[Mapping[str, str]]
    """Where, by key."""

    @model_validator(mode="before")
    @classmethod
    def _not_elsewhere(cls, values: Any) -> Any:
        for key, place in cls.elsewhere.items():
            if isinstance(values, dict) and key in values:
                raise InputError(f"{key}: stands in {place}")
        return values
