"""A training run with a progress bar, that Ctrl-C stops without losing anything."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from actprune.data import load_data
from actprune.training.checkpoint import CHECKPOINT, open_directory
from actprune.training.config import TrainConfig
from actprune.training.trainer import Trainer

if TYPE_CHECKING:
    from rich.console import Console

_STOPPING = (signal.SIGINT, signal.SIGTERM)


def run_training(
    config: TrainConfig, directory: Path, *, resume: bool = False, console: "Console | None" = None
) -> Trainer:
    """Train `config` to its end into `directory` and return the trainer.

    Ctrl-C (or SIGTERM) finishes the step, saves a checkpoint, says how to resume and exits with
    130 (143); a second one stops at once. Raises InputError as the data and the directory do.
    """
    from rich.console import Console

    console = console or Console()
    data = load_data(config.data, config.image_size, config.limit_train, config.limit_test)
    trainer = Trainer(config, data, directory)
    open_directory(directory, config, resume=resume)
    if trainer.restore():
        console.print(f"resumed at step {trainer.step} of {trainer.total_steps}", highlight=False)
    stopped_by = _train(trainer, console)
    if not trainer.done:
        trainer.save()
        console.print(
            f"stopped at step {trainer.step} of {trainer.total_steps}; saved "
            f"{directory / CHECKPOINT}: run the same command with --resume to go on",
            highlight=False,
            soft_wrap=True,
        )
        raise SystemExit(128 + stopped_by)
    return trainer


def _train(trainer: Trainer, console: "Console") -> int:
    """To the end, or to a signal that asks to stop: its number, else 0."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed}/{task.total}{task.fields[accuracy]}"),
        TimeRemainingColumn(compact=True),
    )
    with stop_signals() as received, Progress(*columns, console=console) as progress:
        task = progress.add_task(
            trainer.config.spec,
            total=trainer.total_steps,
            completed=trainer.step,
            accuracy=_accuracy(trainer),
        )
        while not trainer.done and not received:
            trainer.advance(1)
            progress.update(task, completed=trainer.step, accuracy=_accuracy(trainer))
    return received[0] if received else 0


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
