"""What plans under torch.compile hold, cost and err on the models of `benchmarks.scripts.models`.

``python -m benchmarks.scripts.graphs --json FILE`` compares plans within budgets to eager dense,
compiled dense (torch's own partitioner, the same compiler) and checkpointing, and says at the end
what of the goals is reached. ``--compiler inductor`` adds torch's `activation_memory_budget` at the
bytes that the plans hold; ``--sweep`` ten budgets from all of compiled dense's bytes to the least.

The loss is compiled too. On a CPU bytes are those of torch's allocator, from its profiler, and a
step is the processor time of its one thread; its ratio is the median of the rounds' ratios to
compiled dense. On CUDA bytes are the allocator's. Seconds of compilation are of the first step,
with nothing in the caches. Errors are beside eager's gradients; under inductor, whose draws are
others, beside compiled dense's.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from actprune.graph.compiling import COMPILERS
from actprune_bench.records.environment import environment
from actprune_common.errors import InputError
from actprune_common.files import write_json
from benchmarks.scripts.graph_bench import Bench, Options
from benchmarks.scripts.graph_figures import Row, share_of
from benchmarks.scripts.graph_verdicts import verdicts
from benchmarks.scripts.models import models

_SHARES = ("held", "held_compiled", "peak", "peak_compiled", "peak_checkpoint")
_TAIL = (
    "of_limit",
    "error_predicted",
    "compile",
    "gap",
    "seconds_predicted",
    "time_at_equal_bytes",
    "bytes_at_equal_time",
)


def line(row: Row) -> str:
    """Return a row in words."""
    if "failed" in row:
        return str(row["failed"])
    shown = [key for key in (*_SHARES, "error", "step") if key in row]
    words = [f"{key.replace('_', ' / ')} {row[key]:.3f}" for key in shown]
    if "scatter" in row:
        words.append("({:.3f} to {:.3f})".format(*row["scatter"]))
    for key in ("held", "peak"):
        if f"{key}_predicted" in row and row[f"{key}_bytes"]:
            words.append(f"{key} predicted {row[f'{key}_predicted'] / row[f'{key}_bytes']:.3f}")
    words.append(f"graphs {row['graphs']}")
    words += [
        f"{key.replace('_', ' ')} {row[key]:.3f}" for key in _TAIL if row.get(key) is not None
    ]
    return " ".join([*words, row.get("equal_bytes", "")]).rstrip()


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--budget", action="append", help="a share of eager dense's bytes, or compiled:SHARE")
    add("--compiler", default="aot_eager", choices=COMPILERS)
    add("--error", type=float, help="of the gradients, at most, as predicted")
    add("--peak", type=float, help="of a plan, at most, as a share of checkpointing's measured one")
    add("--profile", action="store_true", help="measure errors on the batch first")
    add("--sweep", nargs="?", const="held", choices=("held", "peak"), help="ten budgets of what")
    add("--tries", type=int, default=4, help="torch's budgets tried for each of ours, inductor")
    add("--model", action="append")
    add("--steps", type=int, default=4, help="rounds after the first")
    add("--compilations", type=int, default=2, help="of dense and each budget, timed")
    add("--device", default="cpu", choices=("cpu", "cuda"))
    add("--times", type=int, default=1, help="so many times the batch of four")
    add("--budget-s", type=float, default=float("inf"), help="no new model then")
    add("--json", type=Path)
    given = parser.parse_args()
    try:
        for budget in given.budget or ():
            share_of(budget)
    except InputError as problem:
        parser.error(str(problem))
    return given


def options_of(given: argparse.Namespace) -> Options:
    """Return what the arguments say of a model's measurement."""
    named = {name: getattr(given, name) for name in vars(given) if name in Options.__annotations__}
    return Options(**named, budgets=given.budget or Options().budgets)


def main() -> None:
    """Measure, print a line for each model and setting, and what of the goals is reached."""
    given = arguments()
    torch.set_num_threads(1)
    start, rows = time.monotonic(), {}
    about = environment("python -m benchmarks.scripts.graphs " + " ".join(sys.argv[1:]))
    for number, (name, make) in enumerate(models().items()):
        if (given.model and name not in given.model) or time.monotonic() - start > given.budget_s:
            continue
        torch._dynamo.reset()
        rows[name] = Bench(make, options_of(given)).run(number)
        for setting, row in rows[name].items():
            print(f"{name:20s} {setting:16s} {line(row)}", flush=True)
        found = [vars(each) for each in verdicts(rows, given.times)]
        if given.json:
            write_json(given.json, about | {"models": rows, "verdicts": found})
    for verdict in verdicts(rows, given.times):
        print(verdict)


if __name__ == "__main__":
    main()
