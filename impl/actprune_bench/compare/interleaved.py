"""Several specs trained against each other in one process, in turns."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from actprune.strategies.grammar import read
from actprune_bench.data import ImageData, load_data
from actprune_bench.measure.peak import measured_peak, predicted_peak
from actprune_bench.measure.runs import RECORD, against_dense, run_record, with_fidelity
from actprune_bench.training.checkpoint import open_directory
from actprune_bench.training.config import TrainConfig
from actprune_bench.training.step import threads
from actprune_bench.training.trainer import Trainer
from actprune_common.errors import InputError, last_line
from actprune_common.files import write_json
from actprune_common.results import RunRecord, TrainingRecord, read_record

_MAY_DIFFER = {"spec", "seed", "include", "exclude"}

Peaks = tuple[int, int | None]  # predicted and measured, bytes
Missing = Callable[[TrainConfig, str], None]
"""Called with a run that cannot be made, and why."""
Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of its part is done, and how much there is."""


def train_specs(
    configs: Sequence[TrainConfig],
    *,
    chunk: int = 20,
    directory: Path | None = None,
    resume: bool = False,
    progress: Report = lambda *_: None,
    missing: Missing | None = None,
) -> Iterator[TrainingRecord]:
    """Train `configs` (specs x seeds) and yield a training record per run as its seed finishes.

    The specs of a seed advance in turns of `chunk` steps, another one first each time, so that
    their step times are of one stretch of time and ratios to dense mean something. With a
    directory, each run has the folder SPEC-seedN in it and goes on from there on resume. A spec
    that cannot be compiled here, such as without a C++ compiler, is left out where `missing` takes
    the reason. Raises InputError where dense is missing for a seed, a run stands twice, or the
    configs differ in more than spec, seed, include and exclude.
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
        for label in _interleave(trainers, chunk, missing):
            steps = trained + sum(trainer.step for trainer in trainers)
            progress(f"training {label}, seed {seed}", steps, total)
        trained += trainers[0].total_steps * len(group)
        made = {trainer.config.spec: _record(trainer, peaks) for trainer in trainers}
        for record in made.values():
            yield against_dense(record, made["dense"])


def _interleave(trainers: list[Trainer], chunk: int, missing: Missing | None) -> Iterator[str]:
    """Take every trainer to its end in turns; yields the spec that has just had its turn.

    A trainer that `missing` takes goes from the list. Turn t ends at step (t + 1) * chunk, so a
    resumed trainer that is ahead waits for the others.
    """
    total = trainers[0].total_steps
    for turn, target in enumerate(range(chunk, total + chunk, chunk)):
        lead = turn % len(trainers)
        for trainer in [*trainers[lead:], *trainers[:lead]]:
            steps = min(target, total) - trainer.step
            if steps > 0:
                try:
                    trainer.advance(steps)
                except (InputError, RuntimeError) as problem:
                    if missing is None or not read(trainer.config.spec).compiles:
                        raise
                    trainers.remove(trainer)
                    cause = getattr(problem, "inner_exception", problem)  # torch wraps it
                    missing(trainer.config, last_line(str(cause), type(cause).__name__))
                yield trainer.config.spec


def _record(trainer: Trainer, peaks: dict[str, Peaks]) -> RunRecord:
    """The run's own figures, read back where they were found before."""
    path = trainer.directory / RECORD if trainer.directory else None
    if path and path.exists():
        return read_record(path, RunRecord, path)
    config = trainer.config
    if config.spec not in peaks:
        with ThreadPoolExecutor(1) as pool:  # the measuring process beside the prediction
            measured = pool.submit(measured_peak, config)
            peaks[config.spec] = (predicted_peak(config), measured.result())
    with threads(config.threads):
        record = with_fidelity(run_record(trainer, *peaks[config.spec]), trainer)
    if path:
        write_json(path, record.model_dump(mode="json"))
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
