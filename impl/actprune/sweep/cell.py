"""The process of a cell: `python -m actprune.sweep.cell CELL_DIR` trains it and leaves its record.

SIGTERM ends it after the step it is in, with a checkpoint; the next attempt goes on from there.
"""

import json
import sys
from pathlib import Path

from actprune.config import check
from actprune.environment import environment
from actprune.errors import InputError
from actprune.files import write_json
from actprune.measuring.peak import measured_peak, predicted_peak
from actprune.sweep.cells import CELL, RUN
from actprune.training import TrainConfig, run_training
from actprune.training.records import RECORD, training_record
from actprune.training.step import threads


def run_cell(folder: Path) -> None:
    """Train the cell in `folder`, or go on with it. Raises InputError as training does."""
    values = json.loads((folder / CELL).read_text(encoding="utf-8"))
    config = check(TrainConfig, values, str(folder / CELL))
    if (folder / RECORD).exists():  # its last attempt was lost after its last write
        return
    trainer = run_training(config, folder / RUN, resume=True)
    with threads(config.threads):
        record = training_record(trainer, (predicted_peak(config), measured_peak(config)))
        record["environment"] = environment(config.command())
    write_json(folder / RECORD, record)


if __name__ == "__main__":
    try:
        run_cell(Path(sys.argv[1]))
    except InputError as problem:
        sys.exit(f"actprune: error: {problem}")
