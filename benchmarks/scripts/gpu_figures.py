"""Figures of a GPU: kernels and training steps, checked, interleaved, beside their lower bounds.

``python -m benchmarks.scripts.gpu_figures --out DIR`` needs torch, Triton, CuPy and NumPy.
Parts run in the order of their importance until the budget is used; what was left out is listed.
They run in a process of their own, which is replaced where a part ends it, loses the GPU's context
or blocks: that part keeps what it had measured, and the next one begins anew. A format that does
not compile or run is left out of its part, with its traceback in the record.
Writes DIR/kernels.json, training.json, environment.json, and prints the targets last.
"""

import argparse
import multiprocessing
import shlex
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from actprune import convert, parse, saved_bytes
from actprune.strategies.grammar import apply
from actprune_bench.gpu_static.roofline import bound, find_device
from actprune_bench.measure import kernels
from actprune_bench.measure.clock import clock
from actprune_bench.measure.kernels import Shape, interleave, measure_kernels, rotating_inputs
from actprune_bench.measure.predict import predict
from actprune_bench.measure.tolerance import relative_error, tolerance
from actprune_bench.models import MODELS
from actprune_bench.records.environment import environment
from actprune_common.files import write_json
from actprune_kernels import codes

Record = dict[str, Any]
Product = Callable[[Any, Tensor], Tensor]
"""dW from what is kept of X and from dY."""
PREDICTING = 4
"""Processes beside the one that measures."""
PREDICTED_S = 60
"""Within which a prediction is there once all is measured."""
START_S = 60
"""Within which a process has imported torch."""
BLOCKS = ("32x32", "64x64", "1x64")
LARGE = [
    Shape("S24 fc1", 25088, 384, 1536),
    Shape("S24 fc2", 25088, 1536, 384),
    Shape("B24 fc1", 25088, 768, 3072),
    Shape("B24 fc2", 25088, 3072, 768),
]
SMALL = [Shape("S24 fc1", 196, 48, 96), Shape("S24 fc2", 196, 96, 48)]
BLOCK = "bsr:block=1x64,sparsity=0.9"
TRAINED = ("dense", "bsr:block=64x64,sparsity=0.9", BLOCK, f"lean+{BLOCK}", "checkpoint+dense")
OPS = ("grad_weight", "compress", "linear")
LIBRARY_SPEC = "bsr:block=32x32,sparsity=0.9"
"""Ours, beside LIBRARIES."""
LIBRARIES: dict[str, tuple[Callable[[Tensor], Tensor], Product]] = {
    "torch-bsr-32": (
        lambda x: x.t().contiguous().to_sparse_bsr((32, 32)),
        lambda x, dy: (x @ dy).t(),
    ),
    "torch-bsc-32": (lambda x: x.to_sparse_bsc((32, 32)), lambda x, dy: dy.t() @ x),
    "torch-csr": (lambda x: x.t().contiguous().to_sparse_csr(), lambda x, dy: (x @ dy).t()),
}
"""torch's sparse forms of a pruned X and their products with dY. BSR and CSR are of Xᵀ, as ours
is: torch's fastest way. BSC is of X, which needs no transposition."""
COMPILED = ("dense", "compile+dense", f"compile+{BLOCK}", f"compile+lean+{BLOCK}")


@dataclass(frozen=True)
class Plan:
    """What to measure on which device."""

    device: torch.device
    shapes: Sequence[Shape]
    samples: int
    models: Sequence[tuple[str, int]]
    """(model, batch)"""
    sparsities: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
    quick: bool = False
    """Small sizes on warm caches: does it run?"""


@dataclass(frozen=True)
class Part:
    """One measurement, and the file (kernels, training) that its records go to."""

    name: str
    file: str
    measure: Callable[[], Iterator[Record]]
    predictions: Mapping[str, Callable[[], int]] = field(default_factory=dict)
    """Of each spec the peak of a step, which takes ten seconds of a CPU: in processes beside."""


Parts = Callable[[Plan], Iterator[Part]]


def blocks(sparsity: float) -> list[str]:
    return [f"bsr:block={block},sparsity={sparsity}" for block in BLOCKS]


def parts(plan: Plan) -> Iterator[Part]:
    """All that there is to measure, the most important first."""
    half, single, cuda = torch.bfloat16, torch.float32, plan.device.type == "cuda"

    def kernel(name: str, dtype: torch.dtype, specs: list[str], *ops: str) -> Part:
        return Part(name, "kernels", partial(kernel_records, plan, specs, dtype, ops or OPS))

    def training(number: int, autocast: bool, kind: str, specs: Sequence[str] = TRAINED) -> Part:
        model, batch = plan.models[number]
        training = Training(plan.device.type, model, batch, autocast)
        measure = partial(training_records, plan, training, specs)
        predictions = {spec: partial(training.predict, spec) for spec in specs}
        return Part(f"{model} {kind}", "training", measure, predictions)

    others = range(1, len(plan.models))
    element = ["csr:sparsity=0.9", "coo:sparsity=0.9"]
    triton = [f"{spec},backend=triton" for spec in element if cuda]  # it takes CUDA tensors
    heat = [spec for sparsity in plan.sparsities for spec in blocks(sparsity)]
    yield kernel("bf16 at 90 %", half, [*blocks(0.9), *element])
    yield kernel("bf16 by sparsity", half, heat, "grad_weight")
    for name, dtype in (("bf16", half), ("fp32", single)):
        yield Part(f"codes {name}", "kernels", partial(code_records, plan, dtype))
    yield training(0, True, "bf16")
    yield kernel("fp32 at 90 %", single, [*blocks(0.9), *element, *triton])
    yield Part("libraries bf16", "kernels", partial(library_records, plan, half))
    yield Part("libraries fp32", "kernels", partial(library_records, plan, single))
    yield from (training(number, False, "fp32") for number in (0, *others))
    yield from (training(number, True, "bf16") for number in others)
    yield kernel("priority bf16", half, ["bsr:block=1x64,sparsity=0.9,select=priority"])
    yield kernel("fp32 by sparsity", single, heat, "grad_weight")
    if cuda:  # a CPU takes minutes to compile one
        yield training(0, True, "bf16 compiled", COMPILED)
    sparse = [f"{name}:sparsity={s}" for name in ("csr", "coo") for s in (0.5, 0.99)]
    yield kernel("elements bf16", half, sparse, "grad_weight", "compress")


def kernel_records(
    plan: Plan, specs: Sequence[str], dtype: torch.dtype, ops: Sequence[str]
) -> Iterator[Record]:
    """measure_kernels, each record with its bound on this device."""
    shape, device, sound = plan.shapes[0], plan.device, []
    for spec in specs:
        problem = attempt(partial(train_layer, spec, shape, dtype, device), device)
        if problem is None:
            sound.append(spec)
        else:
            yield product_record(shape, dtype, spec) | problem
    for made in measure_kernels(
        sound, plan.shapes, dtype=dtype, samples=plan.samples, ops=ops, device=device.type
    ):
        yield bounded(device, dict(vars(made)), dtype)


def train_layer(spec: str, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
    """Once forward and backward: does this format run here at all?"""
    layer = convert(nn.Linear(shape.features, shape.out_features, device=device, dtype=dtype), spec)
    x = torch.randn(shape.rows, shape.features, device=device, dtype=dtype, requires_grad=True)
    layer(x).sum().backward()


def attempt(call: Callable[[], object], device: torch.device) -> Record | None:
    """What a call raises, as a record has it; None where it ends well.

    Raises what the device then says, where its context is lost: no later call could succeed.
    """
    try:
        call()
        wait(device)
    except Exception as problem:
        wait(device)
        return described(problem)
    return None


def wait(device: torch.device) -> None:
    torch.get_device_module(device).synchronize()


def described(problem: Exception) -> Record:
    return {
        "ok": False,
        "error": f"{type(problem).__name__}: {problem}",
        "traceback": "".join(traceback.format_exception(problem)),
    }


def bounded(device: torch.device, record: Record, dtype: torch.dtype) -> Record:
    """The record with bytes, FLOP and the least milliseconds of this device, where it is known."""
    known = find_device(torch.cuda.get_device_name()) if device.type == "cuda" else None
    if known is None or record["median_ms"] is None:
        return record | {"bound_ms": None, "limit": None, "share_of_bound": None}
    sizes = (record["rows"], record["features"], record["out_features"])
    spec = record["spec"].removesuffix(",backend=triton")
    least = bound(known, record["op"], spec, *sizes, dtype)
    seconds = record["median_ms"] / 1e3
    return record | {
        "bound_ms": least.seconds * 1e3,
        "limit": least.limit,
        "share_of_bound": least.seconds / seconds,
        "gb_per_s": least.bytes / seconds / 1e9,
        "tflop_per_s": least.flop / seconds / 1e12,
    }


def code_records(plan: Plan, dtype: torch.dtype) -> Iterator[Record]:
    """Codes packed, and unpacked into a buffer, beside a copy: each with its share of the least
    time that its bytes take."""
    device = plan.device
    known = find_device(torch.cuda.get_device_name()) if device.type == "cuda" else None
    for shape in plan.shapes:
        inputs, _ = rotating_inputs(shape, dtype, device)
        flat = [x.view(-1) for x in inputs]
        rooms = [torch.empty_like(x) for x in flat]
        steps = {("copy", "copy"): rotated(lambda x, out: out.copy_(x), flat, rooms)}
        moved = {("copy", "copy"): 2 * rooms[0].nbytes}
        for bits in (4, 8):
            pack, unpack, stored = code_steps(flat, rooms, bits)
            for op, step in (("pack", pack), ("unpack", unpack)):
                steps[f"codes:bits={bits}", op] = step
                moved[f"codes:bits={bits}", op] = rooms[0].nbytes + stored
        times = interleave(list(steps.values()), plan.samples, clock(device))
        copy = statistics.median(times[0])
        for (spec, op), samples in zip(steps, times, strict=True):
            record = product_record(shape, dtype, spec, samples) | {"op": op}
            seconds, size = record["median_ms"] / 1e3, moved[spec, op]
            least = known and size / known.bytes_per_s
            yield record | {
                "ratio_to_dense": None,
                "ratio_to_copy": record["median_ms"] / copy,
                "bound_ms": least and least * 1e3,
                "share_of_bound": least and least / seconds,
                "gb_per_s": size / seconds / 1e9,
            }


def code_steps(
    flat: Sequence[Tensor], rooms: Sequence[Tensor], bits: int
) -> tuple[Callable[[int], Tensor], Callable[[int], Tensor], int]:
    """Pack the tensors, unpack their codes, and the bytes of one's codes.

    Raises ArithmeticError where they are not the definition's.
    """
    group, some = 128, flat[0][: 64 * 128]
    # on a CPU: a GPU's own division and fused operations round ties of the definition otherwise
    coding, definition = codes.backend(some.device), codes.backend(torch.device("cpu"), "naive")
    packed = [coding.pack(x, bits, group) for x in flat]
    expected = definition.pack(some.cpu(), bits, group)
    if not torch.equal(packed[0][: len(expected)].cpu(), expected):
        raise ArithmeticError(f"{bits} bits: expected the definition's codes, got others")

    def pack(x: Tensor, _: Tensor) -> Tensor:
        return coding.pack(x, bits, group)  # type: ignore[no-any-return]

    def unpack(coded: Tensor, out: Tensor) -> Tensor:
        return coding.unpack(coded, bits, group, len(out), out.dtype, out)  # type: ignore[no-any-return]

    return rotated(pack, flat, rooms), rotated(unpack, packed, rooms), packed[0].nbytes


def library_records(plan: Plan, dtype: torch.dtype) -> Iterator[Record]:
    """torch's own sparse products on the same pruned matrices, beside ours and dense."""
    for shape in plan.shapes:
        inputs, grads = rotating_inputs(shape, dtype, plan.device)
        stores = [parse(LIBRARY_SPEC).compress(x) for x in inputs]
        pruned = [store.to_dense() for store in stores]
        steps = {
            "dense": rotated(lambda x, dy: dy.t() @ x, inputs, grads),
            LIBRARY_SPEC: rotated(lambda store, dy: store.grad_weight(dy), stores, grads),
        }
        beside = replace(shape, name=f"{shape.name}, beside libraries")
        for name in LIBRARIES:
            problem = attempt(partial(add_product, steps, name, pruned, grads), plan.device)
            if problem is not None:
                yield product_record(beside, dtype, name) | problem
        times = interleave(list(steps.values()), plan.samples, clock(plan.device))
        dense = statistics.median(times[0])
        for name, samples in zip(steps, times, strict=True):
            yield product_record(beside, dtype, name, samples, dense)


def add_product(
    steps: dict[str, Callable[[int], Tensor]],
    name: str,
    pruned: Sequence[Tensor],
    grads: Sequence[Tensor],
) -> None:
    """Add the product of a library's sparse matrices to the steps, if it is right."""
    make, multiply = LIBRARIES[name]
    step = rotated(multiply, [make(x) for x in pruned], grads)
    error = relative_error(step(0), grads[0].double().t() @ pruned[0].double())
    if not error <= tolerance(grads[0].dtype, len(grads[0])):
        raise ArithmeticError(f"relative error {error:.2g} is over the tolerance")
    steps[name] = step


def rotated(
    multiply: Product, kept: Sequence[Any], grads: Sequence[Tensor]
) -> Callable[[int], Tensor]:
    """The product of what is kept with its gradient, another pair each time."""
    return lambda i: multiply(kept[i % len(kept)], grads[i % len(grads)])


def product_record(
    shape: Shape, dtype: torch.dtype, spec: str, samples: Sequence[float] = (), dense: float = 1
) -> Record:
    median = statistics.median(samples) if samples else None
    sizes = {"rows": shape.rows, "features": shape.features, "out_features": shape.out_features}
    return {
        "spec": spec,
        "op": "grad_weight",
        "layer": shape.name,
        **sizes,
        "dtype": str(dtype).removeprefix("torch."),
        "samples_ms": list(samples),
        "median_ms": median,
        "ratio_to_dense": median and median / dense,
        "ok": True,
        "error": None,
    }


@dataclass(frozen=True)
class Training:
    """Steps of a model on a kind of device."""

    kind: str
    model: str
    batch: int
    autocast: bool

    def build(self, spec: str) -> tuple[nn.Module, torch.optim.Optimizer]:
        with torch.device(self.kind):
            made: nn.Module = MODELS[self.model]()
        if spec != "dense":
            apply(made, spec)
        return made, torch.optim.AdamW(made.parameters(), lr=1e-3, fused=True)

    def example(self) -> tuple[Tensor, Tensor]:
        size = MODELS[self.model].image_size
        images = torch.zeros(self.batch, 3, size, size, device=self.kind)
        return images, torch.zeros(self.batch, dtype=torch.int64, device=self.kind)

    def loss_of(self, net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.autocast):
            return nn.functional.cross_entropy(net(images), labels)

    def step(self, net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        self.loss_of(net, x, y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def predict(self, spec: str) -> int:
        return predict(partial(self.build, spec), self.example, self.step)


def training_records(
    plan: Plan, training: Training, specs: Sequence[str] = TRAINED
) -> Iterator[Record]:
    """Interleaved optimizer steps of all formats: time, allocator's peak, bytes."""
    build, example, step = training.build, training.example, training.step
    loss_of, autocast = training.loss_of, training.autocast
    images, labels = example()
    images.normal_()
    of = {"model": training.model, "batch": training.batch}
    of["dtype"] = "bfloat16" if autocast else "float32"
    made: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = {}

    def add(spec: str) -> None:
        one = build(spec)
        step(*one, images, labels)
        made[spec] = one

    for spec in specs:
        problem = attempt(partial(add, spec), plan.device)
        if problem is not None:
            yield {"spec": spec, **of, "samples_ms": [], "ratio_to_dense": None} | problem
    calls = [partial(step, *one, images, labels) for one in made.values()]
    steps = [(lambda _, call=call: call()) for call in calls]
    taken = interleave(steps, max(3, plan.samples // 2), clock(plan.device))
    times = dict(zip(made, taken, strict=True))
    dense_ms = statistics.median(times["dense"])
    dense_bytes = saved_bytes(loss_of, made["dense"][0], images, labels)
    for spec, one in made.items():
        held = saved_bytes(loss_of, one[0], images, labels)
        yield {
            "spec": spec,
            **of,
            "samples_ms": times[spec],
            "step_ms": (step_ms := statistics.median(times[spec])),
            "ratio_to_dense": step_ms / dense_ms,
            "saved_bytes": held,
            "saved_ratio": held / dense_bytes,
            "measured_peak_bytes": measured_peak(partial(step, *one, images, labels), one),
            "ok": True,
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


def serve(connection: Connection, plan: Plan, parts: Parts) -> None:
    """What the process of a Worker does: the parts that are asked for, until none is."""
    if plan.quick:
        kernels.ROTATION_BYTES = 1  # of small inputs it would be thousands
    found = {part.name: part for part in parts(plan)}
    connection.send(("ready", None))
    while (name := connection.recv()) is not None:
        problem = None
        try:
            for record in found[name].measure():
                connection.send(("record", record | {"part": name}))
            wait(plan.device)
        except Exception as failure:  # the other parts still count
            problem = described(failure)
        connection.send(("done", problem))


class Worker:
    """A process that measures parts; after one that failed it is of no further use."""

    def __init__(self, plan: Plan, parts: Parts) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, plan, parts))
        self._process.start()
        other.close()
        if self._connection.poll(START_S):
            with suppress(EOFError):  # it ended, which the first part will report
                self._connection.recv()

    def measure(self, name: str, limit_s: float, records: list[Record]) -> Record | None:
        """Add the records of a part as they come; what went wrong, or None."""
        deadline = time.monotonic() + limit_s
        try:
            self._connection.send(name)
            while self._connection.poll(max(0.0, deadline - time.monotonic())):
                kind, value = self._connection.recv()
                if kind == "done":
                    return value  # type: ignore[no-any-return]
                records.append(value)
        except (EOFError, OSError):
            self._process.join(10)
            return {"error": f"its process ended with {self._process.exitcode}"}
        return {"error": f"stopped after {limit_s:g} s"}

    def end(self) -> None:
        """Whatever it does."""
        self._process.kill()
        self._process.join()


def run(
    plan: Plan, out: Path, budget_s: float, part_s: float = 100, parts: Parts = parts
) -> dict[str, list[Record]]:
    """Measure part by part; every part that is done is on the disk before the next begins."""
    records: dict[str, list[Record]] = {"kernels": [], "training": []}
    start, todo, worker = time.monotonic(), list(parts(plan)), None
    failed: list[Record] = []
    beside = ProcessPoolExecutor(PREDICTING, mp_context=multiprocessing.get_context("spawn"))
    predicted: dict[tuple[str, str], Future[int]] = {}
    about = environment(shlex.join(["python", *sys.argv]))
    while todo and (passed := time.monotonic() - start) <= budget_s:
        part = todo.pop(0)
        name, file = part.name, part.file
        predicted |= {(name, spec): beside.submit(of) for spec, of in part.predictions.items()}
        worker = worker or Worker(plan, parts)
        problem = worker.measure(name, part_s, records[file])
        if problem is not None:
            worker.end()
            worker = None
            failed.append({"part": name} | problem)
            print(f"{name}: failed: {problem['error']}")
        write_json(out / f"{file}.json", records[file])
        print(f"{name}: {time.monotonic() - start - passed:.0f} s")
    if worker is not None:
        worker.end()
    for record in records["training"]:
        if record["ok"] and (future := predicted.get((record["part"], record["spec"]))):
            record |= collected(future)
    write_json(out / "training.json", records["training"])
    beside.shutdown(wait=False, cancel_futures=True)
    left_out = [part.name for part in todo]
    about |= {"left_out": left_out, "failed": failed, "seconds": time.monotonic() - start}
    write_json(out / "environment.json", about)
    if left_out:
        print(f"left out, the budget was used: {', '.join(left_out)}")
    return records


def collected(prediction: "Future[int]") -> Record:
    """A predicted peak, or why there is none: what was measured is not lost for that."""
    try:
        return {"predicted_peak_bytes": prediction.result(PREDICTED_S)}
    except Exception as problem:
        return {"predicted_peak_bytes": None, "prediction_error": described(problem)["error"]}


def targets(records: dict[str, list[Record]]) -> list[tuple[str, str, str]]:
    """The issue's table, (what, reached, wanted): what was reached beside what was wanted."""
    table = []
    for record in records["kernels"]:
        ratio, spec, op = record["ratio_to_dense"], record["spec"], record["op"]
        if record.get("part") != "bf16 at 90 %" or ratio is None or spec == "dense":
            continue
        wide = spec.startswith(("bsr:block=64x64", "bsr:block=1x64"))
        wanted = ">= 4" if op == "grad_weight" and wide else ""
        table.append((f"{op} {record['layer']} {spec}: dense / ours", f"{1 / ratio:.2f}", wanted))
        share = record.get("share_of_bound")
        if op == "compress" and share is not None:
            # 75 % of what a copy reaches, which on an H200 is 4.3 of the nominal 4.8 TB/s
            table.append(("   share of the least time", f"{share:.2f}", ">= 0.67"))
    for record in records["kernels"]:
        if record["spec"].startswith("codes:") and record["layer"].endswith("fc1"):
            what = f"{record['op']} {record['layer']} {record['dtype']} {record['spec']}"
            table.append((f"{what}: / copy", f"{record['ratio_to_copy']:.2f}", ""))
            if record["share_of_bound"] is not None:
                share = f"{record['share_of_bound']:.2f}"
                table.append(("   share of the least time", share, ">= 0.67"))
    for block in BLOCKS:
        reached = crossover(records["kernels"], block)
        table.append((f"crossover of {block}, bf16", reached, "<= 60 %"))
    for record in records["training"]:
        ratio = record["ratio_to_dense"]
        if record["spec"] != "dense":
            what = f"{record['model']} {record['dtype']} {record['spec']}: step / dense"
            table.append((what, "failed" if ratio is None else f"{ratio:.2f}", "< 1"))
    return table


def crossover(records: Sequence[Record], block: str) -> str:
    """The least sparsity from which on the product is faster than dense, on every shape."""
    slowest: dict[float, float] = {}
    for record in records:
        spec = record["spec"]
        if record.get("part") == "bf16 by sparsity" and spec.startswith(f"bsr:block={block},"):
            ratio = record["ratio_to_dense"]
            sparsity = float(spec.rpartition("=")[2])
            slowest[sparsity] = max(slowest.get(sparsity, 0), ratio or float("inf"))
    faster = list(takewhile(lambda sparsity: slowest[sparsity] < 1, sorted(slowest)[::-1]))
    return f"{faster[-1]:.0%}" if faster else "none"


def main() -> None:
    """Read the options, measure, and print the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder, made if need be")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    parser.add_argument("--budget-s", type=float, default=200, help="no new part after that")
    parser.add_argument("--part-s", type=float, default=100, help="a part is stopped then")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: expected a CUDA device that torch can use, found none")
    plan = Plan(
        torch.device(given.device),
        SMALL if given.quick else LARGE,
        samples=2 if given.quick else 15,
        models=[("resmlp_tiny", 4)] if given.quick else [("resmlp_s24", 128), ("resmlp_b24", 32)],
        quick=given.quick,
    )
    given.out.mkdir(parents=True, exist_ok=True)
    table = targets(run(plan, given.out, given.budget_s, given.part_s))
    for what, reached, wanted in [("what", "reached", "wanted"), *table]:
        print(f"{what:<100} {reached:>8} {wanted:>8}".rstrip())


if __name__ == "__main__":
    main()
