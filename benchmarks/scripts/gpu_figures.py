"""Figures of a GPU: kernels and training steps, checked, interleaved, beside their lower bounds.

``python -m benchmarks.scripts.gpu_figures --out DIR`` needs torch, Triton, CuPy, NumPy, PyYAML
and rich.
Parts run in the order of their importance until the budget is used; what was left out is listed.
Writes DIR/kernels.json, training.json, environment.json, and prints the targets last.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from actprune import parse, saved_bytes
from actprune.strategies.grammar import apply
from actprune_bench.gpu_static.roofline import bound, find_device
from actprune_bench.measure.clock import clock
from actprune_bench.measure.kernels import Shape, interleave, measure_kernels, rotating_inputs
from actprune_bench.measure.predict import predict
from actprune_bench.measure.tolerance import relative_error, tolerance
from actprune_bench.models import MODELS
from actprune_bench.records.environment import environment

Record = dict[str, Any]
BLOCKS = ("32x32", "64x64", "1x64")
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
LARGE = [
    Shape("S24 fc1", 25088, 384, 1536),
    Shape("S24 fc2", 25088, 1536, 384),
    Shape("B24 fc1", 25088, 768, 3072),
    Shape("B24 fc2", 25088, 3072, 768),
]
SMALL = [Shape("S24 fc1", 196, 48, 96), Shape("S24 fc2", 196, 96, 48)]
BLOCK = "bsr:block=1x64,sparsity=0.9"
TRAINED = ("dense", "bsr:block=64x64,sparsity=0.9", BLOCK, f"lean+{BLOCK}", "checkpoint+dense")
COMPILED = ("dense", "compile+dense", f"compile+{BLOCK}", f"compile+lean+{BLOCK}")


@dataclass(frozen=True)
class Plan:
    """What to measure on which device."""

    device: torch.device
    shapes: Sequence[Shape]
    samples: int
    models: Sequence[tuple[str, int]]
    """(model, batch)"""


def blocks(sparsity: float) -> list[str]:
    return [f"bsr:block={block},sparsity={sparsity}" for block in BLOCKS]


def parts(plan: Plan) -> Iterator[tuple[str, str, Callable[[], Iterator[Record]]]]:
    """(name, file, measurement), the most important first."""
    element = ["csr:sparsity=0.9", "coo:sparsity=0.9"]
    heat = [spec for sparsity in SPARSITIES for spec in blocks(sparsity)]
    half, single = torch.bfloat16, torch.float32
    kernels = partial(kernel_records, plan)
    yield "bf16 at 90 %", "kernels", lambda: kernels([*blocks(0.9), *element], half)
    yield "bf16 by sparsity", "kernels", lambda: kernels(heat, half, ("grad_weight",))
    for model, batch in plan.models[:1]:
        yield f"{model} bf16", "training", partial(training_records, plan, model, batch, True)
    priority = "bsr:block=1x64,sparsity=0.9,select=priority"
    triton = [f"{spec},backend=triton" for spec in element]
    if plan.device.type == "cpu":  # Triton takes CUDA tensors
        triton = []
    yield "fp32 at 90 %", "kernels", lambda: kernels([*blocks(0.9), *element, *triton], single)
    yield "libraries bf16", "kernels", partial(library_records, plan, half)
    yield "libraries fp32", "kernels", partial(library_records, plan, single)
    for model, batch in plan.models:
        yield f"{model} fp32", "training", partial(training_records, plan, model, batch, False)
    for model, batch in plan.models[1:]:
        yield f"{model} bf16", "training", partial(training_records, plan, model, batch, True)
    yield "priority bf16", "kernels", lambda: kernels([priority], half)
    yield "fp32 by sparsity", "kernels", lambda: kernels(heat, single, ("grad_weight",))
    if plan.device.type == "cuda":  # a CPU takes minutes to compile one
        model, batch = plan.models[0]
        compiled = partial(training_records, plan, model, batch, True, COMPILED)
        yield f"{model} bf16 compiled", "training", compiled
    sparse = [f"{name}:sparsity={s}" for name in ("csr", "coo") for s in (0.5, 0.99)]
    yield "elements bf16", "kernels", lambda: kernels(sparse, half, ("grad_weight", "compress"))


def kernel_records(
    plan: Plan,
    specs: Sequence[str],
    dtype: torch.dtype,
    ops: Sequence[str] = ("grad_weight", "compress", "linear"),
) -> Iterator[Record]:
    """measure_kernels, each record with its bound on this device."""
    for made in measure_kernels(
        specs, plan.shapes, dtype=dtype, samples=plan.samples, ops=ops, device=plan.device.type
    ):
        yield bounded(plan.device, dict(made), dtype)


def bounded(device: torch.device, record: Record, dtype: torch.dtype) -> Record:
    """The record with bytes, FLOP and the least milliseconds of this device, where it is known."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else ""
    known = find_device(name)
    sizes = (record["rows"], record["features"], record["out_features"])
    if known is None or record["median_ms"] is None:
        return record | {"bound_ms": None, "limit": None, "share_of_bound": None}
    least = bound(
        known, record["op"], record["spec"].removesuffix(",backend=triton"), *sizes, dtype
    )
    seconds = record["median_ms"] / 1e3
    return record | {
        "bound_ms": least.seconds * 1e3,
        "limit": least.limit,
        "share_of_bound": least.seconds / seconds,
        "gb_per_s": least.bytes / seconds / 1e9,
        "tflop_per_s": least.flop / seconds / 1e12,
    }


def library_records(plan: Plan, dtype: torch.dtype) -> Iterator[Record]:
    """torch's own sparse products on the same pruned matrices, beside ours and dense."""
    for shape in plan.shapes:
        (x, *_), (dy, *_) = rotating_inputs(shape, dtype, 0, plan.device)
        store = parse("bsr:block=32x32,sparsity=0.9").compress(x)
        pruned = store.to_dense()
        expected = dy.double().t() @ pruned.double()
        steps: dict[str, Callable[[], Tensor]] = {
            "dense": lambda dy=dy, x=x: dy.t() @ x,  # type: ignore[misc]
            store.format.spec: partial(store.grad_weight, dy),
        }
        turned = pruned.t().contiguous()
        made: dict[str, Callable[[], Tensor]] = {
            "torch-csr": turned.to_sparse_csr,
            "torch-bsr-32": partial(turned.to_sparse_bsr, (32, 32)),
        }
        for name, convert_it in made.items():
            problem, error = None, None
            try:
                sparse = convert_it()
                error = relative_error((sparse @ dy).t(), expected)
            except (RuntimeError, NotImplementedError, ValueError) as failure:
                problem = str(failure).splitlines()[0]
            if error is not None and error > tolerance(dtype, shape.rows):
                problem = f"relative error {error:.2g} is over the tolerance"
            if problem is None:
                steps[name] = lambda sparse=sparse, dy=dy: (sparse @ dy).t()  # type: ignore[misc]
            else:
                yield library_record(shape, dtype, name, [], None, problem)
        calls = [(lambda _, call=call: call()) for call in steps.values()]
        times = interleave(calls, plan.samples, clock(plan.device))
        dense = statistics.median(times[0])
        for name, samples in zip(steps, times, strict=True):
            yield library_record(shape, dtype, name, samples, dense, None)


def library_record(
    shape: Shape,
    dtype: torch.dtype,
    name: str,
    samples: list[float],
    dense: float | None,
    problem: str | None,
) -> Record:
    median = statistics.median(samples) if samples else None
    return {
        "spec": name,
        "op": "grad_weight",
        "layer": f"{shape.name}, beside libraries",
        "rows": shape.rows,
        "features": shape.features,
        "out_features": shape.out_features,
        "dtype": str(dtype).removeprefix("torch."),
        "samples_ms": samples,
        "median_ms": median,
        "ratio_to_dense": median / dense if median and dense else None,
        "ok": problem is None,
        "error": problem,
    }


def training_records(
    plan: Plan, model: str, batch: int, autocast: bool, specs: Sequence[str] = TRAINED
) -> Iterator[Record]:
    """Interleaved optimizer steps of all formats: time, allocator's peak, prediction, bytes."""
    kind = plan.device.type
    dtype = torch.bfloat16 if autocast else torch.float32

    def build(spec: str) -> tuple[nn.Module, torch.optim.Optimizer]:
        with torch.device(kind):
            made: nn.Module = MODELS[model]()
        if spec != "dense":
            apply(made, spec)
        return made, torch.optim.AdamW(made.parameters(), lr=1e-3, fused=True)

    def example() -> tuple[Tensor, Tensor]:
        size = 32 if "tiny" in model else 224
        images = torch.zeros(batch, 3, size, size, device=kind)
        return images, torch.zeros(batch, dtype=torch.int64, device=kind)

    def loss_of(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(kind, torch.bfloat16, enabled=autocast):
            return nn.functional.cross_entropy(net(images), labels)

    def step(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        loss_of(net, x, y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    images, labels = example()
    images.normal_()
    made = {spec: build(spec) for spec in specs}
    calls = [partial(step, *one, images, labels) for one in made.values()]
    steps = [(lambda _, call=call: call()) for call in calls]
    times = interleave(steps, max(3, plan.samples // 2), clock(plan.device))
    dense_ms = statistics.median(times[0])
    dense_bytes = saved_bytes(loss_of, made["dense"][0], images, labels)
    for (spec, one), samples in zip(made.items(), times, strict=True):
        held = saved_bytes(loss_of, one[0], images, labels)
        yield {
            "spec": spec,
            "model": model,
            "batch": batch,
            "dtype": str(dtype).removeprefix("torch."),
            "samples_ms": samples,
            "step_ms": statistics.median(samples),
            "ratio_to_dense": statistics.median(samples) / dense_ms,
            "saved_bytes": held,
            "saved_ratio": held / dense_bytes,
            "predicted_peak_bytes": predict(partial(build, spec), example, step),
            "measured_peak_bytes": measured_peak(partial(step, *one, images, labels), one),
        }


def measured_peak(step: Callable[[], object], one: tuple[nn.Module, Any]) -> int | None:
    """The allocator's peak in a step above what else is alive, the model's own state included."""
    if not torch.cuda.is_available():
        return None
    model, optimizer = one
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    own = sum(t.nbytes for t in (*model.parameters(), *state) if isinstance(t, Tensor))
    return torch.cuda.max_memory_allocated() - before + own


def run(plan: Plan, out: Path, budget_s: float, console: Console) -> dict[str, list[Record]]:
    """Measure part by part; every part that is done is on the disk before the next begins."""
    records: dict[str, list[Record]] = {"kernels": [], "training": []}
    start, left_out, failed = time.monotonic(), [], []
    for name, kind, measurement in parts(plan):
        passed = time.monotonic() - start
        if passed > budget_s:
            left_out.append(name)
            continue
        try:
            records[kind] += [record | {"part": name} for record in measurement()]
        except (RuntimeError, ValueError, ImportError) as problem:  # the other parts still count
            failed.append({"part": name, "error": f"{type(problem).__name__}: {problem}"})
            console.print(f"{name}: failed: {problem}", markup=False, highlight=False)
        write(out / f"{kind}.json", records[kind])
        console.print(f"{name}: {time.monotonic() - start - passed:.0f} s", highlight=False)
    about = environment(shlex.join(["python", *sys.argv])) | {
        "left_out": left_out,
        "failed": failed,
        "seconds": time.monotonic() - start,
    }
    write(out / "environment.json", about)
    if left_out:
        console.print(f"left out, the budget was used: {', '.join(left_out)}", highlight=False)
    return records


def write(path: Path, value: object) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1))
    part.replace(path)


def targets(records: dict[str, list[Record]]) -> Table:
    """The issue's table: what was reached beside what was wanted."""
    table = Table(box=SIMPLE_HEAD)
    for title in ("what", "reached", "wanted"):
        table.add_column(title, justify="left" if title == "what" else "right")
    for record in records["kernels"]:
        ratio, spec, op = record["ratio_to_dense"], record["spec"], record["op"]
        if record.get("part") != "bf16 at 90 %" or ratio is None or spec == "dense":
            continue
        wide = spec.startswith(("bsr:block=64x64", "bsr:block=1x64"))
        wanted = ">= 4" if op == "grad_weight" and wide else ""
        table.add_row(f"{op} {record['layer']} {spec}: dense / ours", f"{1 / ratio:.2f}", wanted)
        share = record.get("share_of_bound")
        if op == "compress" and share is not None:
            # 75 % of what a copy reaches, which on an H200 is 4.3 of the nominal 4.8 TB/s
            table.add_row("   share of the least time", f"{share:.2f}", ">= 0.67")
    for block in BLOCKS:
        table.add_row(
            f"crossover of {block}, bf16", crossover(records["kernels"], block), "<= 60 %"
        )
    for record in records["training"]:
        if record["spec"] != "dense":
            what = f"{record['model']} {record['dtype']} {record['spec']}: step / dense"
            table.add_row(what, f"{record['ratio_to_dense']:.2f}", "< 1")
    return table


def crossover(kernels: Sequence[Record], block: str) -> str:
    """The least sparsity from which on the product is faster than dense, on every shape."""
    slowest: dict[float, float] = {}
    for record in kernels:
        spec = record["spec"]
        if record.get("part") == "bf16 by sparsity" and spec.startswith(f"bsr:block={block},"):
            ratio = record["ratio_to_dense"]
            sparsity = float(spec.rpartition("=")[2])
            slowest[sparsity] = max(slowest.get(sparsity, 0), ratio or float("inf"))
    reached = "none"
    for sparsity in sorted(slowest, reverse=True):
        if slowest[sparsity] >= 1:
            break
        reached = f"{sparsity:.0%}"
    return reached


def main() -> None:
    """Read the options, measure, and print the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder, made if need be")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    parser.add_argument("--budget-s", type=float, default=270, help="no new part after that")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: expected a CUDA device that torch can use, found none")
    plan = Plan(
        torch.device(given.device),
        SMALL if given.quick else LARGE,
        samples=2 if given.quick else 15,
        models=[("resmlp_tiny", 4)] if given.quick else [("resmlp_s24", 128), ("resmlp_b24", 32)],
    )
    given.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=120)
    console.print(targets(run(plan, given.out, given.budget_s, console)))


if __name__ == "__main__":
    main()
