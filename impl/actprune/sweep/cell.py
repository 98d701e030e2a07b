"""The process of a cell: `python -m actprune.sweep.cell CELL_DIR` trains it and leaves its record.

SIGTERM ends it after the step it is in, with a checkpoint; the next attempt goes on from there.
Once the record is written, the process becomes a fresh one that measures the peak and adds it:
beside a trainer that is done with, the measuring would need the memory of two trainings.
"""

import json
import os
import sys
from pathlib import Path

from actprune.config import check
from actprune.environment import environment
from actprune.errors import InputError
from actprune.files import write_json
from actprune.measuring.peak import can_measure, measure_here, predicted_peak, returned_at_once
from actprune.sweep.cells import CELL, PEAK, RUN, record
from actprune.training import TrainConfig, run_training
from actprune.training.records import RECORD, training_record
from actprune.training.step import threads


def run_cell(folder: Path) -> None:
    """Train the cell in `folder`, or go on with it; its record then lacks the measured peak alone.

    Raises InputError as training does.
    """
    if (folder / RECORD).exists():  # its last attempt was lost after it was written
        return
    config = _config(folder)
    trainer = run_training(config, folder / RUN, resume=True)
    with threads(config.threads):
        made = training_record(trainer, (predicted_peak(config), None))
        made["environment"] = environment(config.command())
    write_json(folder / RECORD, made)


def add_peak(folder: Path) -> None:
    """Measure the peak in this process, which is to be a fresh one, and add it to the record."""
    made = record(folder)
    write_json(folder / RECORD, {**made, PEAK: measure_here(_config(folder))})


def main() -> None:
    """Train; then become the process that measures. Where that cannot be, the peak is unknown."""
    folder, stage = Path(sys.argv[1]), sys.argv[2:]
    if stage == [PEAK]:
        add_peak(folder)
        return
    run_cell(folder)
    if can_measure() and record(folder)[PEAK] is None:
        words = [sys.executable, "-m", "actprune.sweep.cell", str(folder), PEAK]
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, words, os.environ | returned_at_once())


def _config(folder: Path) -> TrainConfig:
    values = json.loads((folder / CELL).read_text(encoding="utf-8"))
    return check(TrainConfig, values, str(folder / CELL))


if __name__ == "__main__":
    try:
        main()
    except InputError as problem:
        sys.exit(f"actprune: error: {problem}")
