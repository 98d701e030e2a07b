"""Several specs trained against each other in one process: the training records of results.json."""

import hashlib
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from actprune.inspect.fidelity import fidelity, mean_cosine
from actprune.inspect.gradients import loss_of
from actprune.inspect.memory import saved_bytes
from actprune.strategies.grammar import read
from actprune_bench.data import ImageData, load_data
from actprune_bench.measure.peak import measured_peak, predicted_peak
from actprune_bench.training.checkpoint import open_directory
from actprune_bench.training.config import TrainConfig
from actprune_bench.training.step import threads
from actprune_bench.training.trainer import Trainer
from actprune_common.errors import InputError
from actprune_common.files import write_json

RECORD = "record.json"
DRAWS = 8
"""Of each random selection, for the gradients' bias."""
_MAY_DIFFER = {"spec", "seed", "include", "exclude"}

Record = dict[str, Any]
Peaks = tuple[int, int | None]  # predicted and measured, bytes
Progress = Callable[[str, int, int], None]
"""Called with a description, the steps made of all runs, and the steps to make."""


def train_specs(
    configs: Sequence[TrainConfig],
    *,
    chunk: int = 20,
    directory: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Iterator[Record]:
    """Train `configs` (specs x seeds) and yield a training record per run as its seed finishes.

    The specs of a seed advance in turns of `chunk` steps, another one first each time, so that
    their step times are of one stretch of time and ratios to dense mean something. With a
    directory, each run has the folder SPEC-seedN in it and goes on from there on resume. Raises
    InputError where dense is missing for a seed, a run stands twice, or the configs differ in more
    than spec, seed, include and exclude.
    """
    _check_configs(configs, chunk)
    first = configs[0]
    data = load_data(first.data, first.image_size, first.limit_train, first.limit_test)
    peaks: dict[str, Peaks] = {}  # the same for every seed, and slow to find
    seeds = list(dict.fromkeys(config.seed for config in configs))
    trained = 0
    for seed in seeds:
        group = [config for config in configs if config.seed == seed]
        trainers = [_open(config, data, directory, resume) for config in group]
        total = trainers[0].total_steps * len(configs)
        for label in _interleave(trainers, chunk):
            if progress:
                made = trained + sum(trainer.step for trainer in trainers)
                progress(f"training {label}, seed {seed}", made, total)
        trained += sum(trainer.total_steps for trainer in trainers)
        yield from _records(trainers, peaks)


def training_record(trainer: Trainer, peaks: Peaks) -> Record:
    """What one finished run says of itself, in the memory that its training had.

    What its gradients lose comes with `with_fidelity`, ratios to dense with `against_dense`.
    """
    config = trainer.config
    images, labels = trainer.batch(0)
    accuracies = [epoch["accuracy"] for epoch in trainer.history]
    predicted, measured = peaks
    return {
        "spec": config.spec,
        "model": config.model,
        "data": config.data,
        "data_digest": trainer.data.digest,
        "seed": config.seed,
        "epochs": config.epochs,
        "steps": trainer.total_steps,
        "batch_size": config.batch_size,
        "step_ms": statistics.median(trainer.samples_ms),
        "step_samples_ms": trainer.samples_ms,
        "saved_bytes": saved_bytes(
            loss_of, trainer.model, images, labels, hidden=read(config.spec).hides
        ),
        "predicted_peak_bytes": predicted,
        "measured_peak_bytes": measured,
        "accuracy": accuracies[-1],
        "accuracy_per_epoch": accuracies,
        "grad_cosine": None,
        "layers": [],
        "command": config.command(),
    }


def with_fidelity(record: Record, trainer: Trainer) -> Record:
    """The record with its gradients' fidelity, which takes the memory of dense gradients."""
    layers = fidelity(trainer.model, trainer.batch(0), draws=DRAWS)
    return record | {
        "grad_cosine": mean_cosine(layers),
        "layers": [asdict(layer) for layer in layers],
    }


def against_dense(record: Record, dense: Record) -> Record:
    """The record with its ratios to the dense run of the same seed."""
    return record | {
        "ratio_to_dense": record["step_ms"] / dense["step_ms"],
        "saved_ratio": record["saved_bytes"] / dense["saved_bytes"],
        "accuracy_delta": record["accuracy"] - dense["accuracy"],
    }


def _interleave(trainers: list[Trainer], chunk: int) -> Iterator[str]:
    """Take every trainer to its end in turns; yields the spec that has just had its turn.

    Turn t ends at step (t + 1) * chunk, so a resumed trainer that is ahead waits for the others.
    """
    total = trainers[0].total_steps
    for turn, target in enumerate(range(chunk, total + chunk, chunk)):
        lead = turn % len(trainers)
        for trainer in trainers[lead:] + trainers[:lead]:
            steps = min(target, total) - trainer.step
            if steps > 0:
                trainer.advance(steps)
                yield trainer.config.spec


def _records(trainers: list[Trainer], peaks: dict[str, Peaks]) -> Iterator[Record]:
    made = {trainer.config.spec: _record(trainer, peaks) for trainer in trainers}
    for record in made.values():
        yield against_dense(record, made["dense"])


def _record(trainer: Trainer, peaks: dict[str, Peaks]) -> Record:
    """The run's own figures, read back where they were found before."""
    path = trainer.directory / RECORD if trainer.directory else None
    if path and path.exists():
        try:
            record: Record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise InputError(f"{path}: not readable ({problem}); remove it") from None
        return record
    spec = trainer.config.spec
    if spec not in peaks:
        config = trainer.config
        peaks[spec] = (predicted_peak(config), measured_peak(config))
    with threads(trainer.config.threads):
        record = with_fidelity(training_record(trainer, peaks[spec]), trainer)
    if path:
        write_json(path, record)
    return record


def _open(config: TrainConfig, data: ImageData, directory: Path | None, resume: bool) -> Trainer:
    if directory is None:
        return Trainer(config, data)
    folder = directory / f"{_folder_name(config.spec)}-seed{config.seed}"
    trainer = Trainer(config, data, folder)
    open_directory(folder, config, resume=resume)
    trainer.restore()
    return trainer


def _folder_name(spec: str) -> str:
    """A name of its own for each spec, short enough for a file system."""
    name = "".join(c if c.isalnum() or c in ".=-" else "-" for c in spec)
    if "=>" not in spec:
        return name
    # two plans may differ in their globs' wildcards alone, and be longer than a name may be
    return f"{name[:80]}-{hashlib.sha256(spec.encode()).hexdigest()[:12]}"


def _check_configs(configs: Sequence[TrainConfig], chunk: int) -> None:
    if chunk < 1:
        raise InputError(f"chunk: expected 1 or more steps, got {chunk}")
    if not configs:
        raise InputError("configs: expected at least one, got none")
    runs = [(config.spec, config.seed) for config in configs]
    twice = next((run for run in runs if runs.count(run) > 1), None)
    if twice:
        raise InputError(f"configs: {twice[0]} with seed {twice[1]} is there twice")
    for config in configs:
        if ("dense", config.seed) not in runs:
            raise InputError(f"configs: dense is missing for seed {config.seed}; ratios need it")
        for key, value in config:
            if key not in _MAY_DIFFER and value != getattr(configs[0], key):
                raise InputError(
                    f"configs: {key} differs: {getattr(configs[0], key)!r} and {value!r}"
                )
