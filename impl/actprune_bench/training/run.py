"""A training run with a progress bar, that Ctrl-C stops without losing anything.

Started by torchrun, it is one run over all ranks: rank 0 prints and writes.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from actprune_bench.data import load_data
from actprune_bench.records.environment import environment
from actprune_bench.training.checkpoint import CHECKPOINT, open_directory
from actprune_bench.training.config import TrainConfig
from actprune_bench.training.distributed import joined
from actprune_bench.training.trainer import Trainer

_STOPPING = (signal.SIGINT, signal.SIGTERM)


def run_training(
    config: TrainConfig, directory: Path, *, resume: bool = False, console: Console | None = None
) -> Trainer:
    """Train `config` to its end into `directory` and return the trainer.

    Ctrl-C (or SIGTERM) finishes the step, saves a checkpoint, says how to resume and exits with
    130 (143); a second one stops at once. Under torchrun all ranks train one run, and one that it
    has restarted is resumed. Raises InputError as the data, the directory and the ranks do.
    """
    with joined(config.device) as world:
        console = (console or Console(highlight=False)) if world.first else Console(quiet=True)
        if world.size > 1:
            found = environment("")
            code = {key: found[key] for key in ("commit", "dirty", "actprune", "torch")}
            world.agree(config.model_dump(mode="json") | code)
        world.share(config.batch_size)  # before anything slow
        size, limits = config.image_size, (config.limit_train, config.limit_test)
        data = world.together(lambda: load_data(config.data, size, *limits))
        world.agree({"data_digest": data.digest})
        trainer = Trainer(config, data, directory, world)
        resume = resume or world.restarts > 0
        world.on_first(lambda: open_directory(directory, config, resume=resume))
        if trainer.restore():
            console.print(_resumed(trainer), soft_wrap=True)
        stopped_by = _train(trainer, console)
        if not trainer.done:
            trainer.save()
            text = (
                f"stopped at step {trainer.step} of {trainer.total_steps}; saved "
                f"{directory / CHECKPOINT}: run the same command with --resume to go on"
            )
            console.print(text, soft_wrap=True)
            raise SystemExit(128 + stopped_by)
    return trainer


def _resumed(trainer: Trainer) -> str:
    text = f"resumed at step {trainer.step} of {trainer.total_steps}"
    now, then = trainer.world.size, trainer.resumed_from
    if now != then:
        text += (
            f" on {now} ranks, until then on {then}: the batches stay the same, what is pruned of "
            "each and the order of its sums do not"
        )
    return text


def _train(trainer: Trainer, console: Console) -> int:
    """To the end, or to a signal that asks to stop: its number, else 0."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed}/{task.total}{task.fields[accuracy]}"),
        TimeRemainingColumn(compact=True),
    )
    bar = Progress(*columns, console=console, disable=not trainer.world.first)
    with stop_signals() as received, bar as progress:
        task = progress.add_task(
            trainer.config.spec,
            total=trainer.total_steps,
            completed=trainer.step,
            accuracy=_accuracy(trainer),
        )
        stop = 0
        while not trainer.done and not stop:
            trainer.advance(1)
            progress.update(task, completed=trainer.step, accuracy=_accuracy(trainer))
            # a signal to one rank stops all after the same step: none waits for another
            stop = int(trainer.world.each(received[0] if received else 0).max())
    return stop


def _accuracy(trainer: Trainer) -> str:
    return f", {trainer.history[-1]['accuracy']:.1f} %" if trainer.history else ""


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM in a list; after the first, the next acts as it used to."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only that one gets signals
        yield received
        return

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {n: signal.signal(n, note) for n in _STOPPING}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
