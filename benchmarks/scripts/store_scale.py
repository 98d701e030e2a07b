"""How long a large store takes to answer: generated runs, three questions, seconds and memory.

``python -m benchmarks.scripts.store_scale`` writes 1,000 runs of 1,000 benchmarks with 10
samples each: 10 million samples. ``--runs``, ``--figures`` and ``--samples`` change that;
``--store DIR`` keeps it, or takes one that is there. Last it looks for change points in all of
it, as `history` does.
"""

import random
import resource
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated

import typer

from actprune_ci.history.history import findings
from actprune_ci.history.series import load
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.store.query import sql
from actprune_ci.store.store import write

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
QUESTIONS = {
    "one figure over all commits": """
        SELECT date, "commit", value FROM measurements
        WHERE name = 'suite.Kernels.time_7(spec=bsr:block=32x32,sparsity=0.9, layer=fc1)'
        ORDER BY date
    """,
    "newest run against the 30 before it, every figure": """
        WITH newest AS (SELECT max(run) AS run FROM measurements),
          recent AS (SELECT DISTINCT run FROM measurements ORDER BY run DESC LIMIT 31)
        SELECT name, median(value) FILTER (run = (FROM newest)) AS now,
          median(value) FILTER (run <> (FROM newest)) AS before
        FROM measurements WHERE run IN (FROM recent) GROUP BY name ORDER BY now / before DESC
    """,
    "quartiles of every sample of every figure": """
        SELECT name, machine, count(*), quantile_cont(sample, [0.25, 0.5, 0.75]) FROM samples
        GROUP BY name, machine ORDER BY name
    """,
}


def generated(number: int, figures: int, samples: int) -> Run:
    """Run `number` of a nightly: lognormal times around a level of the figure's own."""
    noise = random.Random(number)
    params = (("spec", "bsr:block=32x32,sparsity=0.9"), ("layer", "fc1"))
    measurements = tuple(
        Measurement(
            Key(f"suite.Kernels.time_{i}", params),
            tuple((1 + i) * 1e-4 * noise.lognormvariate(0, 0.05) for _ in range(samples)),
        )
        for i in range(figures)
    )
    date = (START + timedelta(hours=number)).isoformat()
    environment = {"cpu": "a CPU", "torch": "2.13.0", "python": "3.11"}
    return Run("asv", f"{number:040x}", False, date, "a-machine", environment, measurements)


def measure(store: Path, runs: int, figures: int, samples: int) -> None:
    """Fill the store and ask it; print as it goes."""
    begin = time.perf_counter()
    for number in range(len(list(store.rglob("*.parquet"))), runs):
        write(generated(number, figures, samples), store)
    took = time.perf_counter() - begin
    size = sum(path.stat().st_size for path in store.rglob("*.parquet"))
    count = runs * figures * samples
    print(f"{count:,} samples in {runs:,} files, {size / 1e6:.0f} MB", flush=True)
    print(f"written in {took:.1f} s: {took / runs * 1e3:.0f} ms a run", flush=True)
    for name, question in QUESTIONS.items():
        begin = time.perf_counter()
        rows = len(sql(store, question).rows)
        print(f"{time.perf_counter() - begin:6.2f} s  {name}: {rows:,} rows", flush=True)
    begin = time.perf_counter()
    history = load(store, [f"{number:040x}" for number in range(runs)])
    loaded = time.perf_counter() - begin
    print(f"{loaded:6.2f} s  history of {history.values.shape} loaded", flush=True)
    changes = len(findings(history))
    print(f"{time.perf_counter() - begin - loaded:6.2f} s  its {changes} changes found", flush=True)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    self, others = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    for who, whose in (("this process", self), ("each other", others)):
        peak = resource.getrusage(whose).ru_maxrss / unit
        print(f"peak resident memory, {who}: {peak:,.0f} MiB")


def main(
    runs: int = 1000,
    figures: int = 1000,
    samples: int = 10,
    store: Annotated[Path | None, typer.Option(help="To keep; else a temporary one.")] = None,
) -> None:
    """Measure how long a large store takes to answer."""
    with tempfile.TemporaryDirectory() as temporary:
        measure(store or Path(temporary), runs, figures, samples)


if __name__ == "__main__":
    typer.run(main)
