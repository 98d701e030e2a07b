"""A cell's process: `python -m actprune_bench.sweep.cell CELL_DIR` trains it, leaves its record.

SIGTERM ends it after the step it is in, with a checkpoint; the next attempt goes on from there.
The record is written as soon as the training has ended; the gradients' fidelity and the measured
peak, which may need more memory than the training, are added to it. For the peak the process
becomes a fresh one, since a trainer that is done with would still have its memory.
"""

import os
import sys
from pathlib import Path

from actprune_bench.measure.peak import can_measure, measure_here, predicted_peak, returned_at_once
from actprune_bench.measure.runs import RECORD, run_record, with_fidelity
from actprune_bench.records.environment import environment
from actprune_bench.sweep.cells import CELL, PEAK, RUN, record
from actprune_bench.training import TrainConfig, run_training
from actprune_bench.training.step import threads
from actprune_common.errors import InputError
from actprune_common.files import write_json
from actprune_common.results import read_record


def run_cell(folder: Path) -> None:
    """Train the cell in `folder`, or go on with it; its record then lacks the measured peak alone.

    Raises InputError as training does.
    """
    path = folder / RECORD
    if path.exists() and record(folder).grad_cosine is not None:  # its last attempt was lost
        return
    config = _config(folder)
    trainer = run_training(config, folder / RUN, resume=True)
    with threads(config.threads):
        if not path.exists():
            made = run_record(trainer, predicted_peak(config), None).model_dump(mode="json")
            write_json(path, made | {"environment": environment(config.command())})
        write_json(path, with_fidelity(record(folder), trainer).model_dump(mode="json"))


def main() -> None:
    """Train; then become the process that measures. Where that cannot be, the peak is unknown."""
    folder, stage = Path(sys.argv[1]), sys.argv[2:]
    if stage == [PEAK]:  # this process is the fresh one
        made = record(folder).model_dump(mode="json")
        write_json(folder / RECORD, made | {PEAK: measure_here(_config(folder))})
        return
    run_cell(folder)
    if can_measure() and record(folder).measured_peak_bytes is None:
        words = [sys.executable, "-m", "actprune_bench.sweep.cell", str(folder), PEAK]
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, words, os.environ | returned_at_once())


def _config(folder: Path) -> TrainConfig:
    return read_record(folder / CELL, TrainConfig, folder)


if __name__ == "__main__":
    try:
        main()
    except InputError as problem:
        sys.exit(f"actprune: error: {problem}")
