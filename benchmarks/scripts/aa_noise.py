"""Records what the noise of this machine does to comparisons of equal code (A/A).

python -m benchmarks.scripts.aa_noise OUT.npz
    [--comparisons N] [--pairs N] [--minutes M] [--lasting]

Base and head are processes of this very file. They time small kernels of NumPy alternately, in
random order, one call a sample, on one thread: a fresh process for every sample, or, with
--lasting, one for all of a side's `--pairs` samples. Each comparison starts anew.

OUT.npz holds `seconds` (comparisons, kernels, pairs, 2) as float32, `kernels`, and the `machine`,
`date` and `command` in words. Whatever else runs on the machine meanwhile is part of the
measurement. docs/gate.md says what came of it.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from multiprocessing import get_context
from pathlib import Path
from random import Random
from timeit import timeit
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from actprune_ci.measure.machine import facts
from actprune_common.files import whole

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
RENEWED = 5
"""Comparisons after which the workers, from which fresh processes are forked, are new ones."""
Rows = npt.NDArray[np.float32]


def kernels() -> dict[str, Callable[[], object]]:
    """Small kernels of 1 to 3 ms each, bound by arithmetic, by memory, or by many small steps."""
    random = np.random.default_rng(0)
    a, b = random.random((384, 384)), random.random((384, 384))
    source = random.random(2_000_000)
    target = np.empty_like(source)
    x = random.random((3072, 768), dtype=np.float32)
    places = random.integers(0, source.size, 200_000)

    def norms_topk() -> object:
        squares = np.einsum("rbw,rbw->rb", *[x.reshape(3072, 24, 32)] * 2)  # rows, blocks, width
        norms = squares.reshape(96, 32, 24).sum(1)  # block rows, height, blocks
        return np.argpartition(norms.ravel(), -230)[-230:]

    return {
        "gemm": lambda: a @ b,
        "copy": lambda: np.copyto(target, source),
        "norms_topk": norms_topk,
        "gather": lambda: source[places],
        "exp": lambda: np.exp(source[:300_000]),
        "sort": lambda: np.sort(source[:150_000]),
    }


def serve(connection: Any, lasting: bool) -> None:
    """A worker: whenever it is asked to, it sends the seconds of one call of each kernel.

    Unless `lasting`, a fresh child of the worker makes the calls, each after one to warm up.
    """
    known = kernels()
    for call in known.values():
        call()
    while connection.recv():
        if not lasting and (child := os.fork()):
            os.waitpid(child, 0)
            continue
        connection.send(
            [timeit(call, "pass" if lasting else call, number=1) for call in known.values()]
        )
        if not lasting:
            os._exit(0)


def compare(sides: Sequence[Any], pairs: int, random: Random) -> Rows:
    """(kernels, pairs, 2) seconds of base and head, whose order is drawn anew for each pair."""
    taken = []
    for _ in range(pairs):
        answers = {}
        for side in random.sample((0, 1), 2):
            sides[side].send(True)
            answers[side] = sides[side].recv()
        taken.append((answers[0], answers[1]))
    return np.array(taken, np.float32).transpose(2, 0, 1)


def several(pairs: int, lasting: bool, random: Random) -> list[Rows]:
    """Comparisons by two fresh workers."""
    context = get_context("spawn")
    pipes = [context.Pipe() for _ in range(2)]
    workers = [context.Process(target=serve, args=(theirs, lasting)) for _, theirs in pipes]
    for worker, (_, theirs) in zip(workers, pipes, strict=True):
        worker.start()
        theirs.close()
    sides, comparisons = [ours for ours, _ in pipes], 1 if lasting else RENEWED
    try:
        return [compare(sides, pairs, random) for _ in range(comparisons)]
    finally:
        for worker, side in zip(workers, sides, strict=True):
            side.send(False)
            worker.join()


def save(path: Path, rows: list[Rows], date: str) -> None:
    """Write the recording, whole or not at all."""
    with whole(path) as beside, beside.open("wb") as file:
        np.savez_compressed(
            file,
            seconds=np.array(rows),
            kernels=np.array(list(kernels())),
            machine=np.array(f"{facts()['cpu']}, {os.cpu_count()} cores, NumPy {np.__version__}"),
            date=np.array(date),
            command=np.array(f"python -m benchmarks.scripts.aa_noise {' '.join(sys.argv[1:])}"),
        )


def main(
    out: Path,
    comparisons: int = 800,
    pairs: int = 20,
    minutes: float = 15,
    lasting: Annotated[bool, typer.Option(help="One process a side per comparison.")] = False,
) -> None:
    """Record until the comparisons are done or the minutes are over."""
    os.environ.update(THREADS)  # of the workers
    random, date = Random(0), datetime.now(timezone.utc).isoformat(timespec="seconds")
    rows: list[Rows] = []
    ends = time.monotonic() + 60 * minutes
    while len(rows) < comparisons and time.monotonic() < ends:
        rows += several(pairs, lasting, random)
        if len(rows) % 20 == 0:
            save(out, rows, date)
    save(out, rows, date)


if __name__ == "__main__":
    typer.run(main)
