"""Measure grad_weight's plans on this GPU and write its table.

``python -m benchmarks.scripts.gpu_tune`` tries the search space of actprune_kernels.tuning
on ResMLP's layers and writes kernels/actprune_kernels/tuned/DEVICE.yaml, where every later run
finds it.
"""

import argparse
import statistics
import time
from itertools import product
from pathlib import Path
from unittest import mock

import torch
from triton.runtime.errors import OutOfResources

from actprune import parse
from actprune_bench.measure.clock import cuda_clock
from actprune_bench.measure.kernels import Shape, rotating_inputs
from actprune_bench.measure.tolerance import relative_error, tolerance
from actprune_bench.records.environment import environment
from actprune_common.files import write_whole
from actprune_kernels import tuning
from actprune_kernels.sizes import keep_count
from benchmarks.scripts.gpu_figures import BLOCKS, LARGE

SPARSITY = 0.9
SAMPLES = 7


def tune(dtype: torch.dtype, block: str, shape: Shape) -> dict[str, tuning.Plan]:
    """The fastest plan that is right, by the class of the shape; none where that is the rule's."""
    (x, *_), (dy, *_) = rotating_inputs(shape, dtype, "cuda")
    store = parse(f"bsr:block={block},sparsity={SPARSITY}").compress(x)
    expected = dy.double().t() @ store.to_dense().double()
    bm, bn = (int(size) for size in block.split("x"))
    kept_rows = keep_count(-(-shape.rows // bm), SPARSITY) * bm
    sizes = (dtype, kept_rows, shape.out_features, shape.features, (bm, bn))
    rule = tuning.by_rule(*sizes)
    times: dict[tuning.Plan, float] = {}
    for plan in (rule, *tuning.search_space(rule)):
        with mock.patch.object(tuning, "choose", return_value=plan):  # grad_weight takes it
            try:
                error = relative_error(store.grad_weight(dy), expected)
            except OutOfResources:  # more shared memory or registers than the device has
                continue
            if error <= tolerance(dtype, shape.rows):
                samples = [cuda_clock(lambda: store.grad_weight(dy)) for _ in range(SAMPLES)]
                times[plan] = statistics.median(samples)
    best = min(times, key=lambda plan: times[plan])
    print(f"{tuning.shape_class(*sizes)}: {times[rule] / times[best]:.2f} x the rule, {best}")
    return {tuning.shape_class(*sizes): best} if best != rule else {}


def main() -> None:
    """Tune until the budget is used; what was measured is written either way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=tuning.FOLDER, help="folder of the table")
    parser.add_argument("--budget-s", type=float, default=300, help="no new shape after that")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("expected a CUDA device that torch can use, found none")
    name = torch.cuda.get_device_name()
    plans = dict(tuning.load(name, given.out))
    start = time.monotonic()
    # half precision first, as it is what trains
    for dtype, block, shape in product([torch.bfloat16, torch.float32], BLOCKS, LARGE):
        if time.monotonic() - start > given.budget_s:
            print(f"budget used before {dtype} {block} {shape.name}")
            break
        plans |= tune(dtype, block, shape)
    about = environment("python -m benchmarks.scripts.gpu_tune")
    kept = {key: about[key] for key in ("date", "gpu", "driver", "torch", "triton", "commit")}
    path = given.out / f"{tuning.file_name(name)}.yaml"
    write_whole(path, tuning.dump(name, plans, kept))
    print(f"{path}: {len(plans)} plans")


if __name__ == "__main__":
    main()
