"""The machines of a store: their runs, and what changed on each from run to run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from actprune_ci.model.runs import OF_THE_RUN
from actprune_ci.store.query import sql

_MACHINES = """
SELECT machine, strftime(date, '%Y-%m-%d %H:%M') AS date, source, "commit", environment
FROM measurements GROUP BY ALL ORDER BY ALL
"""


@dataclass(frozen=True)
class MachineRuns:
    """One machine's runs."""

    name: str
    runs: int
    commit: str
    """The last one measured."""
    date: str
    environment: Mapping[str, str]
    """Of the last run."""
    changes: Sequence[tuple[str, str, str, str]]
    """(date, what, before, after), the newest first."""


def machines(store: str | Path) -> list[MachineRuns]:
    """The machines of a store by name, what changed on each from run to run."""
    made = []
    for name, rows in groupby(sql(store, _MACHINES).rows, itemgetter(0)):
        changes, seen, runs = [], dict[str, str](), list(rows)
        for _, date, _, _, environment in runs:
            now = {what: environment[what] for what in environment if what not in OF_THE_RUN}
            changes += [
                (date, what, seen[what], value)
                for what, value in now.items()
                if seen.get(what, value) != value
            ]
            seen |= now
        _, date, _, commit, _ = runs[-1]
        made.append(MachineRuns(name, len(runs), commit, date, seen, changes[::-1]))
    return made
