"""What is seen of a sweep: a live line on a terminal, a line per attempt on a pipe, a table."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from actprune_bench.report.table import spec_table
from actprune_bench.sweep.cells import DONE, Cell, Outcome
from actprune_bench.sweep.gather import SweepResult


class LiveWatch(Progress):
    """Counts what has ended, and shows it."""

    def __init__(self, console: Console, total: int, done: int, failed: int) -> None:
        columns = BarColumn(bar_width=20), TextColumn("{task.description}"), TimeElapsedColumn()
        super().__init__(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.total, self.done, self.failed = total, done, failed
        self._running: Sequence[Cell] = ()
        self._task = self.add_task("", total=total)
        self._show()

    def running(self, cells: Sequence[Cell]) -> None:
        """These run now."""
        self._running = cells
        self._show()

    def ended(self, cell: Cell, outcome: Outcome, *, again: bool) -> None:
        """An attempt has ended; whether there will be another."""
        self._running = [other for other in self._running if other != cell]
        good = outcome.outcome == DONE
        self.done += good
        self.failed += not good and not again
        self._show()
        if good and not outcome.message and self.console.is_terminal:
            return
        took = "" if outcome.seconds is None else f" after {outcome.seconds:.0f} s"
        why = "; ".join(filter(None, [outcome.why, "once more" if again else ""]))
        self.say(f"{self._counts()}: {cell.name}: {outcome.outcome}{took}{why and f' ({why})'}")

    def say(self, text: str) -> None:
        """A line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def _counts(self) -> str:
        running = len(self._running)
        return f"{self.done} done, {self.failed} failed, {running} running of {self.total}"

    def _show(self) -> None:
        shown = [cell.config for cell in self._running[:2]]
        names = [escape(f"{config.spec} seed {config.seed}") for config in shown]
        more = [f"{len(self._running) - 2} more"] if len(self._running) > 2 else []
        text = ": ".join(filter(None, [self._counts(), ", ".join(names + more)]))
        self.update(self._task, completed=self.done + self.failed, description=text)


def print_result(found: SweepResult, console: Console) -> None:
    """What failed and why, and how many ended in each way."""
    if found.failed:
        table = spec_table("not done", (), ("outcome", "why", "folder"))
        for cell, end in found.failed:
            table.add_row(escape(cell.name), end.outcome, escape(end.why), cell.id)
        console.print(table)
    for cell in found.alone:
        line = f"{cell.name}: done, but its machine has no dense run of that seed: no ratios"
        console.print(line, markup=False, soft_wrap=True)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in found.outcomes.items())
    console.print(f"{sum(found.outcomes.values())} cells: {counts}")
    for page in found.results:
        console.print(f"the page: {page}", soft_wrap=True)
