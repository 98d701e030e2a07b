"""A cell of a sweep: its folder, its attempts, and whether it is to be run again.

    cells/ID/cell.json             what it is (the keys of a training run)
    cells/ID/run/                  the training run with its checkpoint
    cells/ID/attempts/0001.log     what an attempt printed; there from its start
    cells/ID/attempts/0001.json    how it ended; written once, at its end
    cells/ID/record.json           the training record of a cell that is trained

An attempt with a log alone runs or is lost. Nothing else says what has been done, so whoever can
read the folder can go on.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from actprune_bench.measure.runs import RECORD
from actprune_bench.sweep.config import Retries
from actprune_bench.training.config import TrainConfig
from actprune_common.files import write_json
from actprune_common.results import Environment, RunRecord, read_record

CELL, RUN, ATTEMPTS = "cell.json", "run", "attempts"
PEAK = "measured_peak_bytes"
"""Of a record: what its cell measures last."""
OVER = "over its limit of "
DONE, STOPPED, LOST = "done", "stopped", "lost"


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: done, failed, timeout, memory, lost, or stopped with the sweep."""

    outcome: str
    message: str = ""
    """The last lines that it printed, or what ended it."""
    exit_code: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    """Of the resident memory of all its processes, as far as it was looked at."""
    host: str | None = None
    log: str = ""

    @property
    def why(self) -> str:
        """The message's first line, and of an error its last, which tells the most."""
        lines = [line.strip() for line in self.message.splitlines()]
        lines = [line for line in lines if line and not line.startswith("Traceback (most recent")]
        if lines and lines[0].startswith(OVER):  # what it had to say until then is no reason
            return lines[0]
        return ": ".join(dict.fromkeys([*lines[:1], *lines[-1:]]))


@dataclass(frozen=True)
class Cell:
    """One training run of the grid."""

    id: str
    folder: Path
    config: TrainConfig = field(compare=False)

    @property
    def name(self) -> str:
        """For people."""
        config = self.config
        return f"{config.spec} of {config.model} on {config.data}, seed {config.seed}"

    def prepare(self) -> None:
        """Make its folder."""
        if not (self.folder / CELL).exists():
            (self.folder / ATTEMPTS).mkdir(parents=True, exist_ok=True)
            write_json(self.folder / CELL, self.config.model_dump(mode="json"))


def cell_id(config: TrainConfig) -> str:
    """Of the values alone, in whatever order they come."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def cell_of(config: TrainConfig, sweep: Path) -> Cell:
    """The cell of a training run in the folder of a sweep."""
    name = cell_id(config)
    return Cell(name, sweep / "cells" / name, config)


def attempts(folder: Path) -> list[Outcome]:
    """How the attempts of a cell ended, the first first; those that have not ended are not there.

    Raises InputError naming a file that is damaged.
    """
    paths = sorted((folder / ATTEMPTS).glob("*.json"))
    return [read_record(path, Outcome, remove=path) for path in paths]


def running(folder: Path) -> list[Path]:
    """The logs of attempts that have not ended."""
    logs = sorted((folder / ATTEMPTS).glob("*.log"))
    return [log for log in logs if not log.with_suffix(".json").exists()]


def begin(folder: Path) -> Path:
    """The log of a new attempt, empty."""
    count = len(list((folder / ATTEMPTS).glob("*.log")))
    log = folder / ATTEMPTS / f"{count + 1:04d}.log"
    log.touch(exist_ok=False)
    return log


def end(log: Path, outcome: Outcome) -> None:
    """Write how the attempt with this log ended."""
    write_json(log.with_suffix(".json"), asdict(outcome))


def settle(folder: Path, why: str) -> None:
    """Call lost what has not ended; nobody may be running it any more."""
    for log in running(folder):
        end(log, Outcome(LOST, why, log=log.name))


def to_run(tried: list[Outcome], retries: Retries) -> bool:
    """Whether a cell with these attempts is to be tried, or tried again."""
    outcomes, last = [each.outcome for each in tried], standing(tried)
    if last is None or DONE in outcomes:
        return last is None
    return outcomes.count(last.outcome) <= int(getattr(retries, last.outcome))


def standing(tried: list[Outcome]) -> Outcome | None:
    """What became of a cell: its last attempt, but a stop says nothing; None where it never ran."""
    return next((each for each in reversed(tried) if each.outcome != STOPPED), None)


class CellRecord(RunRecord):
    """What a cell's run says of itself, and where that was."""

    environment: Environment


def record(folder: Path) -> CellRecord:
    """The record of a cell that is done. Raises InputError where it is gone or damaged."""
    return read_record(folder / RECORD, CellRecord, folder)
