"""The main job: formats compared as kernels and as training runs, into one folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator

from actprune import results
from actprune.environment import environment
from actprune.errors import InputError
from actprune.formats import parse
from actprune.measuring.kernels import Shape, measure_kernels
from actprune.report.page import write_page
from actprune.training.config import TrainConfig
from actprune.training.records import train_specs

if TYPE_CHECKING:
    from rich.console import Console

RESULTS, PAGE = "results.json", "index.html"
Records = list[dict[str, Any]]
Report = Callable[..., None]


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


class KernelPart(_Part):
    """Which kernels are measured, and how often."""

    shapes: list[ShapeConfig] = S24
    samples: int = Field(default=11, ge=1)
    dtype: str = "float32"
    heat_map: HeatMap | None = HeatMap()


class TrainingPart(_Part):
    """Which training runs are compared; the keys are those of `actprune train`."""

    model: str = "resmlp_tiny"
    data: str = "embedded"
    epochs: int = Field(default=2, ge=1)
    batch_size: int = Field(default=128, ge=1)
    lr: float = Field(default=1.5e-2, gt=0)
    seeds: list[int] = [0]
    limit_train: int | None = Field(default=None, ge=1)
    limit_test: int | None = Field(default=None, ge=1)


class CompareConfig(_Part):
    """A comparison, as in its YAML file; `kernels: null` or `training: null` leaves a part out."""

    formats: list[str] = [
        "dense",
        "coo:sparsity=0.9",
        "csr:sparsity=0.9",
        "bsr:block=32x32,sparsity=0.9",
        "bsr:block=1x32,sparsity=0.9",
        "bsr:block=1x32,sparsity=0.9,select=priority",
    ]
    threads: int | None = Field(default=None, ge=1, le=1024)
    kernels: KernelPart | None = KernelPart()
    training: TrainingPart | None = TrainingPart()

    @field_validator("formats")
    @classmethod
    def _canonical(cls, formats: list[str]) -> list[str]:
        return list(dict.fromkeys(["dense", *(parse(spec).spec for spec in formats)]))

    def runs(self) -> list[TrainConfig]:
        """The training runs: every format for every seed."""
        part = self.training
        if part is None:
            return []
        rest = part.model_dump(exclude={"seeds"})
        return [
            TrainConfig(spec=spec, seed=seed, threads=self.threads, **rest)
            for seed in part.seeds
            for spec in self.formats
        ]


def run_compare(
    config: CompareConfig, out: Path, *, command: str, resume: bool, console: "Console"
) -> results.Results:
    """Measure what `config` says into `out`: results.json, and index.html at the end.

    results.json is written after the kernels and after every seed; `resume` goes on from there.
    Raises InputError where `out` is in use and resume is False.
    """
    runs = config.runs()  # a bad configuration shows before anything is measured
    kept = _open(out, resume)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    described = kept.environment.model_dump() if kept else environment(command)
    dumped = kept.model_dump(mode="json", by_alias=True) if kept else {}
    kernels: Records = dumped.get("kernels", [])
    training: Records = []

    def save() -> results.Results:
        made = results.make(described, kernels, training)
        results.write(out / RESULTS, made)
        return made

    with _progress(console) as report:
        if not kernels and config.kernels is not None:
            kernels = list(_kernels(config, config.kernels, report))
            save()
        if runs:
            for record in train_specs(
                runs, directory=out / "training", resume=resume, progress=report
            ):
                training.append(record)
                save()
    made = save()
    write_page(made, out / PAGE)
    return made


def _kernels(config: CompareConfig, part: KernelPart, report: Report) -> Iterator[dict[str, Any]]:
    shapes = [Shape(**shape.model_dump()) for shape in part.shapes]
    dtype = getattr(torch, part.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise InputError(f"dtype: expected a dtype such as float32, got {part.dtype!r}")

    def say(line: str) -> None:
        report(f"kernels: {line}")

    yield from measure_kernels(
        config.formats, shapes, dtype=dtype, samples=part.samples, progress=say
    )
    grid = part.heat_map
    if grid is None:
        return
    specs = [f"bsr:block={b},sparsity={s}" for b in grid.blocks for s in grid.sparsities]
    done = {parse(spec).spec for spec in config.formats}
    for record in measure_kernels(
        [spec for spec in specs if parse(spec).spec not in done],
        shapes,
        dtype=dtype,
        samples=grid.samples,
        ops=["grad_weight"],
        progress=say,
    ):
        if record["spec"] != "dense":  # the first pass has its own
            yield record


def _open(out: Path, resume: bool) -> results.Results | None:
    """The results so far; None for a new folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        used = any(out.iterdir())
    except OSError as problem:
        raise InputError(f"{out}: cannot be made ({problem.strerror})") from None
    if used and not resume:
        raise InputError(f"{out}: is not empty; --resume goes on there, or name another folder")
    return results.read(out / RESULTS) if (out / RESULTS).exists() else None


@contextmanager
def _progress(console: "Console") -> Iterator[Report]:
    """A progress bar with the time left; `report(text, done, total)` moves it."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def report(text: str, done: int = 0, total: int | None = None) -> None:
            progress.update(task, description=text, completed=done, total=total)

        yield report
