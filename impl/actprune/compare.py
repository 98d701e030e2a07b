"""The main job: formats compared as kernels and as training runs, into one folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from actprune import results
from actprune.config import load_yaml
from actprune.environment import environment
from actprune.errors import InputError
from actprune.formats import parse
from actprune.measuring.kernels import OPS, Shape, measure_kernels
from actprune.report.page import write_page
from actprune.strategies import read
from actprune.tolerance import TOLERANCE
from actprune.training.checkpoint import write_whole
from actprune.training.config import TrainConfig
from actprune.training.records import train_specs

if TYPE_CHECKING:
    from rich.console import Console

CONFIG, RESULTS, PAGE = "compare.yaml", "results.json", "index.html"
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in TOLERANCE}
Record = dict[str, Any]
Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of its part is done, and how much there is."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ShapeConfig(_Part):
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


class HeatMap(_Part):
    """The grid of block-sparse grad_weight measurements: every block at every sparsity."""

    blocks: list[str] = ["1x32", "1x64", "8x32", "32x32", "64x64"]
    sparsities: list[float] = [0.5, 0.8, 0.9, 0.95, 0.99]
    samples: int = Field(default=5, ge=1)

    @model_validator(mode="after")
    def _valid(self) -> "HeatMap":
        self.specs()
        return self

    def specs(self) -> list[str]:
        """The grid as specs."""
        grid = [(block, s) for block in self.blocks for s in self.sparsities]
        return [parse(f"bsr:block={block},sparsity={s}").spec for block, s in grid]


class KernelPart(_Part):
    """Which kernels are measured, and how often."""

    shapes: list[ShapeConfig] = Field(default=S24, min_length=1)
    samples: int = Field(default=11, ge=1)
    dtype: str = "float32"
    device: str = "cpu"
    heat_map: HeatMap | None = HeatMap()

    @field_validator("shapes")
    @classmethod
    def _named_apart(cls, shapes: list[ShapeConfig]) -> list[ShapeConfig]:
        names = [shape.name for shape in shapes]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"expected a name of its own for each, got {twice!r} twice")
        return shapes

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, dtype: str) -> str:
        if dtype not in DTYPES:
            raise InputError(f"expected one of {', '.join(DTYPES)}, got {dtype!r}")
        return dtype

    @field_validator("device")
    @classmethod
    def _usable_device(cls, device: str) -> str:
        if device not in ("cpu", "cuda"):
            raise InputError(f"expected cpu or cuda, got {device!r}")
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("expected a CUDA device that torch can use, found none")
        return device


_ELSEWHERE = {"spec": "formats", "seed": "seeds", "threads": "threads, beside training"}


class TrainingPart(TrainConfig):
    """Which training runs are compared: the keys of `actprune train`, but for the specs' and seeds'
    sake without spec, seed and threads."""

    epochs: int = Field(default=2, ge=1, le=100_000)
    device: Literal["cpu"] = "cpu"  # where the peaks are measured
    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(default=[0], min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _no_single_run(cls, values: Any) -> Any:
        for key, place in _ELSEWHERE.items():
            if isinstance(values, dict) and key in values:
                raise InputError(f"{key}: stands in {place}")
        return values

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise InputError(f"expected each once, got {seeds}")
        return seeds

    def run(self, spec: str, seed: int, threads: int | None) -> TrainConfig:
        """One of the runs."""
        rest = self.model_dump(exclude={"seeds", *_ELSEWHERE})
        return TrainConfig(**rest, spec=spec, seed=seed, threads=threads)


class CompareConfig(_Part):
    """A comparison, as in its YAML file; `kernels: null` or `training: null` leaves a part out."""

    formats: list[str] = [
        "dense",
        "coo:sparsity=0.9",
        "csr:sparsity=0.9",
        "bsr:block=32x32,sparsity=0.9",
        "bsr:block=1x32,sparsity=0.9",
        "bsr:block=1x32,sparsity=0.9,select=priority",
        "lean+bsr:block=1x128,sparsity=0.5,select=priority,values=int4",
        "checkpoint+dense",
    ]
    threads: int | None = Field(default=None, ge=1, le=1024)
    kernels: KernelPart | None = KernelPart()
    training: TrainingPart | None = TrainingPart()

    @field_validator("formats")
    @classmethod
    def _canonical(cls, formats: list[str]) -> list[str]:
        return list(dict.fromkeys(["dense", *(read(spec).spec for spec in formats)]))

    @model_validator(mode="after")
    def _something(self) -> "CompareConfig":
        if self.kernels is None and self.training is None:
            raise InputError("kernels, training: expected at least one of them, got null for both")
        return self

    def values(self) -> dict[str, Any]:
        """As in a YAML file."""
        return self.model_dump(mode="json", exclude={"training": set(_ELSEWHERE)})

    def runs(self) -> list[TrainConfig]:
        """The training runs: every format for every seed."""
        part = self.training
        if part is None:
            return []
        pairs = [(spec, seed) for seed in part.seeds for spec in self.formats]
        return [part.run(spec, seed, self.threads) for spec, seed in pairs]


def open_folder(out: Path, config: CompareConfig | None, *, resume: bool) -> CompareConfig:
    """Make `out` for a new comparison, or find the one in it; returns its configuration.

    Without a `config` a resumed comparison goes on with its own, and a new one is the quick one.
    Raises InputError where `out` is in use and resume is False, or where its comparison differs.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        used = any(entry.suffix != ".tmp" for entry in out.iterdir())
    except OSError as problem:
        raise InputError(f"{out}: cannot be made ({problem.strerror})") from None
    if used and not resume:
        raise InputError(f"{out}: is not empty; --resume goes on there, or name another folder")
    if (out / CONFIG).exists():
        kept = load_yaml(out / CONFIG, CompareConfig)
        config = config or kept
        differing = [key for key, value in config if value != getattr(kept, key)]
        if differing:
            raise InputError(f"{out}: holds another comparison: {', '.join(differing)} differ")
        return kept
    config = config or CompareConfig()
    text = yaml.safe_dump(config.values(), sort_keys=False)
    write_whole(out / CONFIG, text.encode())
    return config


def run_compare(
    config: CompareConfig, out: Path, *, command: str, console: "Console"
) -> results.Results:
    """Measure what `config` says and `out` (of open_folder) lacks: results.json and index.html."""
    made = measure(config, out, command=command, console=console)
    write_page(made, out / PAGE)
    return made


def measure(
    config: CompareConfig, out: Path, *, command: str, console: "Console"
) -> results.Results:
    """The same without the page.

    results.json is written after each layer's kernels and each seed's training. Raises InputError
    where `out` holds results of another machine, commit or torch.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    now = environment(command)
    kept = _kept(out / RESULTS, now)
    described = kept["environment"] if kept else now
    kernels: list[Record] = kept["kernels"] if kept else []
    training: list[Record] = kept["training"] if kept else []

    def save() -> results.Results:
        made = results.make(described, kernels, training)
        results.write(out / RESULTS, made)
        return made

    with _progress(console) as report:
        for name, records in _kernels(config, kernels, report):
            kernels += records
            save()
            console.print(f"kernels of {name}: measured", highlight=False)
        for record in _training(config, out, report):
            place = (record["spec"], record["seed"])
            training = [r for r in training if (r["spec"], r["seed"]) != place] + [record]
            if record["spec"] == config.formats[-1]:
                save()
                console.print(f"training with seed {record['seed']}: done", highlight=False)
    return save()


def _kept(path: Path, now: Mapping[str, object]) -> Record | None:
    """The results so far, as plain records."""
    if not path.exists():
        return None
    kept: Record = results.read(path).model_dump(mode="json", by_alias=True)
    for key in ("fingerprint", "commit", "torch"):
        if kept["environment"][key] != now[key]:
            raise InputError(
                f"{path}: is of another {key} ({kept['environment'][key]}, now {now[key]}); "
                "start in another folder"
            )
    return kept


def _kernels(
    config: CompareConfig, kept: Sequence[Record], report: Report
) -> Iterator[tuple[str, list[Record]]]:
    """Per layer, the records that `kept` lacks."""
    part = config.kernels
    if part is None:
        return
    grid = part.heat_map
    # the grid's formats that the comparison measures anyway are not measured twice
    formats = [spec for spec in config.formats if read(spec).format]
    cells = [spec for spec in grid.specs() if spec not in formats] if grid else []
    full, single = len(formats) * part.samples, len(cells) * (grid.samples if grid else 0)
    total = len(part.shapes) * (len(OPS) * full + single)
    have = {(record["layer"], record["op"], record["spec"]) for record in kept}
    done = 0
    for layer in part.shapes:
        for specs, ops, samples in (
            (formats, OPS, part.samples),
            (cells, ("grad_weight",), grid.samples if grid else 0),
        ):
            work = len(specs) * samples

            def say(line: str, work: int = work) -> None:
                nonlocal done
                report(f"kernels: {line}", done, total)
                done += work

            if {(layer.name, op, spec) for op in ops for spec in specs} <= have:
                done += work * len(ops)
                continue
            shape, dtype = Shape(**layer.model_dump()), DTYPES[part.dtype]
            records = measure_kernels(
                specs,
                [shape],
                dtype=dtype,
                samples=samples,
                ops=ops,
                device=part.device,
                progress=say,
            )
            what = layer.name if specs is formats else f"{layer.name}, heat map"
            yield what, [dict(record) for record in records if record["spec"] in specs]


def _training(config: CompareConfig, out: Path, report: Report) -> Iterator[Record]:
    runs = config.runs()
    if runs:
        report("training: reading the data", 0, 1)
        yield from train_specs(runs, directory=out / "training", resume=True, progress=report)


@contextmanager
def _progress(console: "Console") -> Iterator[Report]:
    """A progress bar with the time left of each part: the kernels, then the training."""
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def report(text: str, done: int, total: int) -> None:
            part = text.partition(" ")[0].rstrip(":")
            if part not in tasks:
                for other in tasks.values():
                    progress.remove_task(other)
                tasks.clear()
                tasks[part] = progress.add_task(text, total=total)
            progress.update(tasks[part], description=text, completed=done, total=total)

        yield report
