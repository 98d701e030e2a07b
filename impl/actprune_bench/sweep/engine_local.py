"""Cells as processes of this machine, some at a time."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from actprune_bench.sweep.attempt import CELL_COMMAND, GRACE_S, POLL_S, Attempt, Limits
from actprune_bench.sweep.cells import Cell, attempts, to_run
from actprune_bench.sweep.config import Retries
from actprune_bench.sweep.watch import LiveWatch


@dataclass(frozen=True)
class Work:
    """The cells to run, in this order, and how."""

    cells: Sequence[Cell]
    limits: Limits
    retries: Retries
    command: Sequence[str] = CELL_COMMAND


def run_local(work: Work, watch: LiveWatch, stopping: Sequence[int], *, jobs: int) -> None:
    """Run `work`, `jobs` cells at a time, until all have ended or `stopping` holds something.

    What runs then is asked to stop, and ended by force where it does not.
    """
    waiting, running = deque(work.cells), dict[Cell, Attempt]()
    try:
        while (waiting or running) and not stopping:
            while waiting and len(running) < jobs:
                cell = waiting.popleft()
                running[cell] = Attempt(cell.folder, work.limits, work.command)
                watch.running(list(running))
            time.sleep(POLL_S)
            for cell, attempt in list(running.items()):
                outcome = attempt.poll()
                if outcome is None:
                    continue
                del running[cell]
                again = to_run(attempts(cell.folder), work.retries)
                watch.ended(cell, outcome, again=again)
                if again:
                    waiting.append(cell)
    finally:  # all within the time that one has to save what it has
        for attempt in running.values():
            attempt.ask_to_stop()
        deadline = time.monotonic() + GRACE_S
        for attempt in running.values():
            attempt.stop(deadline - time.monotonic())
