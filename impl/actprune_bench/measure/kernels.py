"""Time compress, grad_weight and a whole linear layer for several formats, checked and interleaved.

Every sample round runs every format once, in an order that rotates, over inputs that rotate through
more memory than a cache holds; so a slow moment of the machine falls on all of them alike. A format
that fails its check in this run gets no time.
"""

import copy
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from actprune.formats import Compressed, Dense, Format, PruningFormat, parse
from actprune.formats.base import BaselineFormat
from actprune.layers.convert import convert
from actprune_bench.measure.clock import Clock, clock, wall_clock
from actprune_bench.measure.tolerance import TOLERANCE, relative_error, tolerance
from actprune_common.errors import InputError, check_at_least, check_one_of
from actprune_kernels.backends import resolve

try:
    from actprune_common.results import KernelRecord
except ModuleNotFoundError:  # pydantic, on a GPU image: the fields are unchecked there
    KernelRecord = SimpleNamespace  # type: ignore[assignment,misc]

OPS = ("compress", "grad_weight", "linear")
WARMUP = 2
ROTATION_BYTES = 96 * 2**20
"""Inputs rotate through this much memory: more than the last-level cache of most machines."""

Step = Callable[[int], object]


@dataclass(frozen=True)
class Shape:
    """The matrices of one linear layer: X (rows, features), dY (rows, out_features)."""

    name: str
    rows: int
    features: int
    out_features: int

    def __post_init__(self) -> None:
        for size in ("rows", "features", "out_features"):
            check_at_least(size, getattr(self, size), 1)


@dataclass
class _Case:
    """One format on one shape: what to check and what to time."""

    format: Format
    stores: list[Compressed]
    layer: nn.Linear
    errors: dict[str, float]
    problem: str | None = None


def measure_kernels(
    specs: Sequence[str],
    shapes: Sequence[Shape],
    *,
    dtype: torch.dtype = torch.float32,
    samples: int = 15,
    ops: Sequence[str] = OPS,
    device: str = "cpu",
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[KernelRecord]:
    """Yield a record per (shape, op, spec); dense is measured too and comes first.

    progress is called with a line of text before each (shape, op). Times are milliseconds: of wall
    clock on the CPU, with the threads that torch is set to; of the device on CUDA, between events,
    from a cold L2 cache and without the time it takes to launch (measure.clock). Raises
    InputError on bad arguments.
    """
    if unknown := set(ops) - set(OPS):
        raise InputError(f"ops: expected some of {', '.join(OPS)}, got {', '.join(unknown)}")
    check_at_least("samples", samples, 1)
    check_one_of("dtype", dtype, TOLERANCE)
    formats = list(dict.fromkeys([parse("dense"), *(parse(spec) for spec in specs)]))
    for shape in shapes:
        inputs, grads = rotating_inputs(shape, dtype, device)
        torch.manual_seed(0)
        layer = nn.Linear(shape.features, shape.out_features, dtype=dtype).to(device)
        cases = [_prepare(format, layer, inputs, grads, ops) for format in formats]
        if cases[0].problem is not None:  # nothing to be a ratio to
            for case in cases[1:]:
                case.problem = f"dense failed its check: {cases[0].problem}"
        timed = [case for case in cases if case.problem is None]
        for op in ops:
            progress(f"{shape.name} {op}")
            steps = [_step(op, case, inputs, grads) for case in timed]
            taken = interleave(steps, samples, clock(inputs[0].device))
            times = dict(zip(map(id, timed), taken, strict=True))
            dense = statistics.median(times.get(id(cases[0]), [math.nan]))
            for case in cases:
                yield _record(op, shape, case, times.get(id(case), []), dense)


def rotating_inputs(
    shape: Shape, dtype: torch.dtype, device: torch.device | str
) -> tuple[list[Tensor], list[Tensor]]:
    """Several X and dY of `shape`, together larger than a cache."""
    generator = torch.Generator(device).manual_seed(0)
    one = shape.rows * (shape.features + shape.out_features) * dtype.itemsize
    count = max(2, -(-ROTATION_BYTES // one))

    def several(width: int) -> list[Tensor]:
        made = partial(torch.randn, shape.rows, width, generator=generator, device=device)
        return [made().to(dtype) for _ in range(count)]

    return several(shape.features), several(shape.out_features)


def _prepare(
    format: Format, layer: nn.Linear, inputs: list[Tensor], grads: list[Tensor], ops: Sequence[str]
) -> _Case:
    """Compress every input, and check on the first what is to be timed against the definition."""
    stores = [format.compress(x) for x in inputs]
    case = _Case(format, stores, convert(copy.deepcopy(layer), format), {})
    case.errors["compress"] = compress_error(stores[0], inputs[0])
    expected = grads[0].double().t() @ stores[0].to_dense().double()
    case.errors["grad_weight"] = relative_error(stores[0].grad_weight(grads[0]), expected)
    if "linear" in ops:
        case.errors["linear"] = _linear_error(case, layer, inputs[0], grads[0])
    for op, error in case.errors.items():
        if not error <= tolerance(inputs[0].dtype, len(inputs[0])):
            case.problem = f"{op}: relative error {error:.2g} is over the tolerance"
    return case


def compress_error(store: Compressed, activation: Tensor) -> float:
    """How far a store is from the definition of its format.

    The relative difference of the kept energy ‖to_dense()‖ against the naive backend, which a tie
    decided otherwise does not change but a wrong selection does; and inf where an entry that top-k
    kept is not the activation's own.
    """
    format, kept = store.format, store.to_dense()
    if isinstance(format, Dense):
        return relative_error(kept, activation)
    own = torch.where(kept != 0, activation, 0)
    if format.exact and not format.stochastic and not torch.equal(kept, own):
        return float("inf")
    if format.exact and format.stochastic and kept.device.type != "cpu":
        # it draws other numbers than naive does, but scales all that it keeps by 1 or more
        scale = (kept.double() / own.double())[kept != 0]
        return max(0.0, 1 - float(scale.min())) if len(scale) else 0.0
    naive = replace(format, backend="naive") if isinstance(format, PruningFormat) else format
    energy = naive.compress(activation).to_dense().double().norm()
    return relative_error(kept.double().norm(), energy)


def _linear_error(case: _Case, dense: nn.Linear, x: Tensor, grad: Tensor) -> float:
    """The worst relative error over output, input gradient and bias gradient: all are exact."""
    results = []
    for layer in (case.layer, dense):
        leaf = x.clone().requires_grad_()
        out = layer(leaf)
        results.append((out.detach(), *torch.autograd.grad(out, (leaf, layer.bias), grad)))
    return max(relative_error(got, want) for got, want in zip(*results, strict=True))


def _step(op: str, case: _Case, inputs: list[Tensor], grads: list[Tensor]) -> Step:
    count = len(inputs)
    if op == "compress":
        if isinstance(case.format, Dense):  # the unit of comparison: one copy into warm memory
            buffer = torch.empty_like(inputs[0])
            return lambda i: buffer.copy_(inputs[i % count])
        return lambda i: case.format.compress(inputs[i % count])
    if op == "grad_weight":
        return lambda i: case.stores[i % count].grad_weight(grads[i % count])
    leaves = [x.detach().requires_grad_() for x in inputs]

    def forward_backward(i: int) -> None:
        case.layer(leaves[i % count]).backward(grads[i % count])
        leaves[i % count].grad = None
        case.layer.zero_grad(set_to_none=True)

    return forward_backward


def interleave(
    steps: Sequence[Step], samples: int, measure: Clock = wall_clock
) -> list[list[float]]:
    """Milliseconds of each step, `samples` each: all once per round, in rotating order."""
    times: list[list[float]] = [[] for _ in steps]
    for sample in range(-WARMUP, samples):
        for turn in range(len(steps)):
            index = (turn + sample) % len(steps)
            elapsed = measure(partial(steps[index], sample % 1024))
            if sample >= 0:
                times[index].append(elapsed)
    return times


def _backend(format: Format, store: Compressed) -> str:
    if not isinstance(format, PruningFormat) or isinstance(format, BaselineFormat):
        return "torch"
    return resolve(format.name, format.backend, store.device, store.dtype)


def _record(
    op: Any, shape: Shape, case: _Case, times: list[float], dense_ms: float
) -> KernelRecord:
    median = statistics.median(times) if times else None
    spec, x = case.format.spec, case.stores[0]
    size = f"{shape.rows}x{shape.features}x{shape.out_features}"
    dtype = str(x.dtype).removeprefix("torch.")
    return KernelRecord(
        spec=spec,
        op=op,
        layer=shape.name,
        rows=shape.rows,
        features=shape.features,
        out_features=shape.out_features,
        dtype=dtype,
        device=str(x.device),
        backend=_backend(case.format, x),
        samples_ms=times,
        median_ms=median,
        ratio_to_dense=None if median is None else median / dense_ms,
        nbytes=x.nbytes,
        nbytes_ratio=x.nbytes / (shape.rows * shape.features * x.dtype.itemsize),
        rel_error=case.errors[op],
        ok=case.problem is None,
        error=case.problem,
        command=f"actprune kernels --format '{spec}' --shape {size} --dtype {dtype}"
        + (f" --device {x.device.type}" if x.device.type != "cpu" else ""),
    )
