"""How often `history` tells steps that are none, and finds those that are, on real series.

``python -m benchmarks.scripts.history_trials FOLDER`` reads all result files of any known tool
below a folder, or a store. A series is a figure of one machine and environment, its commits in the
order of their dates; every one is taken as noisy. It prints the rates of actprune_ci.history.trials
for each machine, and for simulated series.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from actprune_ci.history.changes import changes
from actprune_ci.history.machine import settled
from actprune_ci.history.trials import Rates, rates
from actprune_ci.model.reading import json_object
from actprune_ci.readers import read
from actprune_common.errors import InputError

Matrix = NDArray[np.float64]
Machine = tuple[str, str, str]
"""The folder that a file is in, one below the one given; the machine; the environment's name."""
DWELLS = ((5, 20), (10, 30), (20, 40), (20, 100))
"""Mean commits of a slow state and of the fast one."""


def drifting(commits: int, series: int, rho: float, noise: float = 0.02, seed: int = 0) -> Matrix:
    """Figures whose noise is AR(1), from its stationary law."""
    drawn = np.random.default_rng([seed, commits]).normal(size=(commits, series))
    for i in range(1, commits):
        drawn[i] = rho * drawn[i - 1] + np.sqrt(1 - rho**2) * drawn[i]
    made: Matrix = np.exp(noise * drawn)
    return made


def sticky(
    commits: int, series: int, slow: int, fast: int, same: bool = True, seed: int = 0
) -> Matrix:
    """Figures that are slower by 5 to 15 % for `slow` commits in the mean, then not for `fast`.

    States change by Markov's law; `same`: a figure's slow state is always as slow.
    """
    rng = np.random.default_rng([seed, commits, slow, fast])
    away = rng.random(series) < slow / (slow + fast)
    height = np.log1p(rng.uniform(0.05, 0.15, series))
    made = rng.normal(0, 0.01, (commits, series))
    for row in made:
        turns = rng.random(series) < np.where(away, 1 / slow, 1 / fast)
        away ^= turns
        if not same:
            height = np.where(turns, np.log1p(rng.uniform(0.05, 0.15, series)), height)
        row += height * away
    whole: Matrix = np.exp(made)
    return whole


def matrices(folder: Path) -> Iterator[tuple[Machine, Matrix]]:
    """Each machine's figures over its commits, by the commits' dates."""
    cells: dict[Machine, dict[Any, dict[tuple[str, str], list[float]]]] = {}
    left: Counter[str] = Counter()
    for path in sorted(folder.rglob("*.json")):
        try:
            runs = read(path)
            versions = _versions(path)
        except InputError as error:
            left[str(error).removeprefix(str(path))[:60]] += 1
            continue
        part = path.relative_to(folder).parts[0]
        for run in runs:
            where = (part, run.machine, run.environment.get("env_name", ""))
            at = (run.environment.get("commit_date", run.date), run.commit)
            figures = cells.setdefault(where, defaultdict(lambda: defaultdict(list)))
            for each in run.measurements:
                version = each.key.version or versions.get(each.key.benchmark, "")
                if each.samples:
                    figures[each.key, version][at].append(float(np.median(each.samples)))
    print(f"left out: {sum(left.values())} files, {len(left)} reasons")
    for where, figures in sorted(cells.items()):
        commits = sorted({at for column in figures.values() for at in column})
        rows = {at: row for row, at in enumerate(commits)}
        matrix = np.full((len(rows), len(figures)), np.nan)
        for i, column in enumerate(figures.values()):
            for at, values in column.items():
                matrix[rows[at], i] = np.median(values)
        yield where, matrix


def _versions(path: Path) -> dict[str, str]:
    """The version of each benchmark in one of asv's files, of either format."""
    document = json_object(path)
    columns = document.get("result_columns", ())
    if "version" not in columns:
        return {
            name: str(version) for name, version in document.get("benchmark_version", {}).items()
        }
    at = columns.index("version")
    rows = document["results"].items()
    return {name: str(row[at]) for name, row in rows if len(row) > at}


def simulated(commits: int, series: int, seed: int) -> Iterator[tuple[str, Matrix]]:
    """Series without any change."""
    for rho in (0.0, 0.5, 0.8, 0.9):
        yield f"AR(1) {rho}", drifting(commits, series, rho, seed=seed)
    for slow, fast in DWELLS:
        for same in (True, False):
            kind = "one slow state" if same else "another slow state each time"
            name = f"{slow} commits slow, {fast} fast, {kind}"
            yield name, sticky(commits, series, slow, fast, same, seed)


def confirmed(matrix: Matrix) -> tuple[int, int]:
    """How many columns have a confirmed step: each by itself, and as one machine's."""
    noisy = [False] * matrix.shape[1]
    alone = changes(matrix, noisy)
    together, _ = settled(alone, matrix, noisy)
    first, second = (
        sum(any(change.standing == "confirmed" for change in column) for column in found)
        for found in (alone, together)
    )
    return first, second


def main(
    folder: Annotated[Path | None, typer.Argument(help="Of result files, at any depth.")] = None,
    effect: float = 0.05,
    trials: int = 1,
    seed: int = 0,
) -> None:
    """Measure the error rates on real and on simulated series."""
    whole = Rates(0, 0, 0, 0, 0)
    print("series, false, false in blocks, bound below the effect, found", flush=True)
    for where, matrix in matrices(folder) if folder else ():
        made = rates(matrix, [False] * matrix.shape[1], None, effect, trials, seed=seed)
        whole += made
        if made.series:
            print(*where, len(matrix), "commits:", *astuple(made), flush=True)
    print("all:", *astuple(whole))
    for commits in (60, 200):
        for name, matrix in simulated(commits, 500, seed):
            alone, together = (f"{100 * n / 500:.1f} %" for n in confirmed(matrix))
            print(f"{commits} commits, {name}: alone {alone}, of a machine {together}", flush=True)


if __name__ == "__main__":
    typer.run(main)
