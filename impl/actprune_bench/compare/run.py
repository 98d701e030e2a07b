"""A comparison from its folder to its results."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from actprune.strategies import grammar
from actprune_bench.compare.config import DTYPES, CompareConfig
from actprune_bench.compare.interleaved import Missing, Report, train_specs
from actprune_bench.measure.kernels import Shape, measure_kernels
from actprune_bench.records.environment import check_same, environment
from actprune_bench.training.config import TrainConfig
from actprune_common import results
from actprune_common.errors import InputError
from actprune_common.files import make_folder, write_whole
from actprune_common.results import (
    OPS,
    Environment,
    KernelRecord,
    NotDone,
    Results,
    TrainingRecord,
)
from actprune_common.strict_yaml import load_yaml

CONFIG, RESULTS, PAGE = "compare.yaml", "results.json", "index.html"
EVERY_S = 10.0
"""Seconds between two lines of progress where the output is no terminal."""


def open_folder(out: Path, config: CompareConfig | None, *, resume: bool) -> CompareConfig:
    """Make `out` for a new comparison, or find the one in it; returns its configuration.

    Without a `config` a resumed comparison goes on with its own, and a new one is the quick one.
    Raises InputError where `out` is in use and resume is False, or where its comparison differs.
    """
    make_folder(out, resume=resume)
    if (out / CONFIG).exists():
        kept = load_yaml(out / CONFIG, CompareConfig)
        differing = [key for key, value in config or kept if value != getattr(kept, key)]
        if differing:
            raise InputError(f"{out}: holds another comparison: {', '.join(differing)} differ")
        return kept
    config = config or CompareConfig()
    write_whole(out / CONFIG, yaml.safe_dump(config.values(), sort_keys=False))
    return config


def measure(config: CompareConfig, out: Path, *, command: str, console: Console) -> Results:
    """Measure what `config` says and `out` (of open_folder) lacks, into its results.json.

    It is written after each layer's kernels and each seed's training. Of a spec that cannot be
    compiled here it says why, and goes on. Raises InputError
    where `out` holds results of another machine, commit or torch.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    made = _begun(out / RESULTS, Environment.model_validate(environment(command)))
    kernels, training = made.kernels, made.training
    made.not_done.clear()

    def missing(run: TrainConfig, why: str) -> None:
        about = run.model_dump(include={"spec", "model", "data", "seed"})
        made.not_done.append(NotDone(**about, outcome="failed", why=why))
        console.print(f"{run.spec}, seed {run.seed}: left out, {why}", soft_wrap=True)

    with _progress(console) as report:
        for name, records in _kernels(config, kernels, report):
            kernels += records
            results.write(out / RESULTS, made)
            console.print(f"kernels of {name}: measured")
        for record in _training(config, out, report, missing):
            place = (record.spec, record.seed)
            training[:] = [r for r in training if (r.spec, r.seed) != place] + [record]
            if record.spec == config.formats[-1]:
                results.write(out / RESULTS, made)
                console.print(f"training with seed {record.seed}: done")
    results.write(out / RESULTS, made)
    return made


def _begun(path: Path, now: Environment) -> Results:
    """The results so far; none yet where there is no file."""
    if not path.exists():
        return Results(schema=results.SCHEMA, environment=now, kernels=[], training=[])
    kept = results.read(path)
    check_same(path, kept.environment.model_dump(), now.model_dump())
    return kept


def _kernels(
    config: CompareConfig, kept: Sequence[KernelRecord], report: Report
) -> Iterator[tuple[str, list[KernelRecord]]]:
    """Per layer, the records that `kept` lacks."""
    part = config.kernels
    if part is None:
        return
    formats = [spec for spec in config.formats if grammar.read(spec).format]
    tasks: list[tuple[str, list[str], Sequence[str], int]] = [("", formats, OPS, part.samples)]
    if grid := part.heat_map:
        # its formats that the comparison measures anyway are not measured twice
        cells = [spec for spec in grid.specs() if spec not in formats]
        tasks.append((", heat map", cells, ["grad_weight"], grid.samples))
    each = sum(len(specs) * len(ops) * samples for _, specs, ops, samples in tasks)
    have = {(record.layer, record.op, record.spec) for record in kept}
    done = 0

    def say(work: int, line: str) -> None:
        nonlocal done
        report(f"kernels: {line}", done, each * len(part.shapes))
        done += work

    for layer, (what, specs, ops, samples) in product(part.shapes, tasks):
        work = len(specs) * samples
        if {(layer.name, op, spec) for op in ops for spec in specs} <= have:
            done += work * len(ops)
            continue
        records = measure_kernels(
            specs,
            [Shape(**layer.model_dump())],
            dtype=DTYPES[part.dtype],
            samples=samples,
            ops=ops,
            device=part.device,
            progress=partial(say, work),
        )
        yield layer.name + what, [record for record in records if record.spec in specs]


def _training(
    config: CompareConfig, out: Path, report: Report, missing: Missing
) -> Iterator[TrainingRecord]:
    runs = config.runs()
    if runs:
        report("training: reading the data", 0, 1)
        yield from train_specs(
            runs, directory=out / "training", resume=True, progress=report, missing=missing
        )


@contextmanager
def _progress(console: Console) -> Iterator[Report]:
    """Say what is done and how long the rest of its part takes: a bar, or lines in a pipe."""
    if not console.is_terminal:
        yield ProgressLines(console)
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task, part = progress.add_task("", total=None), ""

        def report(text: str, done: int, total: int) -> None:
            nonlocal part
            if part != part_of(text):  # of which the speed so far says nothing
                part = part_of(text)
                progress.reset(task)
            progress.update(task, description=text, completed=done, total=total)

        yield report


def part_of(text: str) -> str:
    """The part of a comparison that a line is about: its first word."""
    return text.partition(" ")[0].rstrip(":")


class ProgressLines:
    """A line every `EVERY_S` seconds, with what of the part is done and an estimate of the rest."""

    def __init__(self, console: Console, now: Callable[[], float] = time.monotonic) -> None:
        self.console, self.now = console, now
        self.part, self.began, self.said = "", 0.0, -math.inf
        self.first = 0
        """What was done of the part when it began: a resumed one does not begin at nothing."""

    def __call__(self, text: str, done: int, total: int) -> None:
        now = self.now()
        if part_of(text) != self.part:
            self.part, self.began, self.first = part_of(text), now, done
        if now - self.said < EVERY_S:
            return
        self.said = now
        share = f"{done / total:.0%} of the {self.part}"
        if done > self.first:
            seconds = (now - self.began) * (total - done) / (done - self.first)
            share += f", about {seconds:.0f} s of it left"
        self.console.print(f"{text} ({share})", soft_wrap=True)
