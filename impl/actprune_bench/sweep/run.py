"""A sweep from its folder to its page."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from actprune_bench.records.environment import check_same, environment
from actprune_bench.sweep.attempt import CELL_COMMAND, Limits
from actprune_bench.sweep.cells import DONE, Cell, attempts, cell_of, settle, standing, to_run
from actprune_bench.sweep.config import SweepConfig
from actprune_bench.sweep.engine_local import Work, run_local
from actprune_bench.sweep.gather import SweepResult, gather
from actprune_bench.sweep.watch import LiveWatch
from actprune_bench.training.run import stop_signals
from actprune_common.errors import InputError
from actprune_common.files import alone, look_in, write_json, write_whole
from actprune_common.results import Environment, read_record
from actprune_common.strict_yaml import load_yaml

CONFIG, ENVIRONMENT, LOCK = "sweep.yaml", "environment.json", "lock"
ENGINES = ("local", "ray")
Run = Callable[[Work, LiveWatch, Sequence[int]], None]
"""Runs work, tells who watches, and stops where the numbers of signals are given."""


@dataclass
class StoppedError(Exception):
    """A signal stopped the sweep; what was done is kept."""

    number: int


def find_config(out: Path, config: SweepConfig | None, *, resume: bool) -> SweepConfig:
    """The configuration of the sweep in `out`, new or there already; nothing is written.

    A resumed sweep goes on with its own configuration, or with another that is given: cells that
    are in both are not run again, those of the old one alone stay, unused. Raises InputError
    where `out` is in use and resume is False, and where there is no sweep to resume.
    """
    used = look_in(out, resume=resume)
    if used and not (out / CONFIG).exists():
        raise InputError(f"{out}: holds no sweep to resume (no {CONFIG})")
    if config is None and not used:
        raise InputError("--config: expected the file of a sweep, got none")
    return config or load_yaml(out / CONFIG, SweepConfig)


def run_sweep(
    config: SweepConfig,
    out: Path,
    *,
    words: str,
    console: Console,
    engine: str = "local",
    address: str | None = None,
    jobs: int | None = None,
    command: Sequence[str] = CELL_COMMAND,
) -> SweepResult:
    """Run what `config` (of find_config) says and `out` lacks; what was found is written there.

    words: the command that repeats it. jobs: cells at a time; one by default, on Ray as many as
    its machines hold. command: what runs a cell, for tests. Raises StoppedError where a
    signal stopped the sweep, and InputError where another sweep runs in `out`, where it holds
    cells of another machine, commit or torch, and as the engine does; then `out` is as it was.
    """
    limits = Limits(config.timeout_s, config.memory_bytes)
    cells = [cell_of(each, out.resolve()) for each in config.cells()]
    with (
        _engine(engine, address, jobs, config, cells) as run,
        alone(out / LOCK, "a sweep is running there"),
    ):
        _check_same(out, environment(words))
        write_whole(out / CONFIG, yaml.safe_dump(config.values(), sort_keys=False))
        work = Work(_pending(cells, config), limits, config.retries, command)
        with stop_signals() as stopping, _watch(cells, work.cells, console) as watch:
            if work.cells:
                run(work, watch, stopping)
        if stopping:
            raise StoppedError(stopping[0])
        return gather(cells, out, words)


@contextmanager
def _engine(
    name: str, address: str | None, jobs: int | None, config: SweepConfig, cells: Sequence[Cell]
) -> Iterator[Run]:
    """What runs cells, ready before anything is written; a Ray only where there are some to run."""
    if name == "ray" and any(to_run(attempts(cell.folder), config.retries) for cell in cells):
        from actprune_bench.sweep.engine_ray import joined, run_ray

        with joined(address, config.training.threads or 1, config.gpus) as ray:
            yield partial(run_ray, ray, jobs=jobs)
    else:
        yield partial(run_local, jobs=jobs or 1)


def _pending(cells: Sequence[Cell], config: SweepConfig) -> list[Cell]:
    """The cells that are to be run, with their folders made and what was cut off called lost."""
    pending = []
    for cell in cells:
        cell.prepare()
        settle(cell.folder, "the sweep ended while it ran")
        if to_run(attempts(cell.folder), config.retries):
            pending.append(cell)
    return pending


def _watch(cells: Sequence[Cell], pending: Sequence[Cell], console: Console) -> LiveWatch:
    ended = [standing(attempts(cell.folder)) for cell in cells if cell not in set(pending)]
    done = sum(end is not None and end.outcome == DONE for end in ended)
    return LiveWatch(console, total=len(cells), done=done, failed=len(ended) - done)


def _check_same(out: Path, now: dict[str, Any]) -> None:
    """Raises InputError where `out` was begun on another machine, commit or torch."""
    path = out / ENVIRONMENT
    if path.exists():
        check_same(out, read_record(path, Environment, path).model_dump(), now)
    else:
        write_json(path, now)
