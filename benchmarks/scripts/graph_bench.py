"""The variants of one model in `benchmarks.scripts.graphs`, measured side by side."""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any, Literal
from unittest import mock

import torch
from torch import Tensor, nn

from actprune.graph.compiling import Backend, backend
from actprune.graph.options import Errors
from actprune.graph.plan import Plan
from actprune.graph.profiling import profile as errors_of
from actprune.solver.search import solve
from actprune_common.errors import InputError
from benchmarks.scripts.graph_figures import (
    CHECKPOINTING,
    COMPILED,
    EAGER,
    PLANNED,
    SWEPT,
    TORCH,
    Row,
    beside_torch,
    predicted,
    share_of,
    swept,
    timing,
)
from benchmarks.scripts.graph_steps import allocated, cold, graphs, loss_of, seconds, seeded
from benchmarks.scripts.graph_verdicts import LEAST, RECOMMENDED
from benchmarks.scripts.models import Make, Step, build

_LOWEST, _HIGHEST = 0.05, 0.95
"""Of torch's budgets that are tried."""
_HALVINGS = 6
"""Of the span in which the least peak is looked for."""
_TOLD = 300
"""Characters of an error."""
Limit = Literal["held", "peak"]
"""What a budget is of."""


@dataclass(frozen=True)
class Options:
    """What a run measures, as the command line gives it."""

    budgets: Sequence[str] = (LEAST, RECOMMENDED)
    compiler: str = "aot_eager"
    steps: int = 4
    compilations: int = 2
    times: int = 1
    error: float | None = None
    peak: float | None = None
    sweep: Limit | None = None
    levels: int = 10
    tries: int = 4
    profile: bool = False
    device: str = "cpu"


@dataclass
class Variant:
    """One way to run a model's step, its bytes and times."""

    kind: str
    model: nn.Module
    step: Step
    row: Row
    backend: Backend | None = None
    samples: list[float] = field(default_factory=list)


class Bench:
    """One model's variants, measured side by side."""

    def __init__(self, make: Make, options: Options) -> None:
        self.make, self.options = make, options
        self.variants: dict[str, Variant] = {}
        self.rows: dict[str, Row] = {}
        self.exact: dict[str, Tensor] = {}
        self.errors = Errors()

    def run(self, first: int) -> dict[str, Row]:
        """Return the rows; `first` even: dense is compiled first where compilation is timed."""
        options = self.options
        if options.profile:  # first: it resets what was compiled
            model, x = self.build()
            self.errors = errors_of(loss_of(model, "profiled"), x, compiler=options.compiler)
        self.add(EAGER, EAGER)
        self.add(CHECKPOINTING, CHECKPOINTING)
        self.add(COMPILED, COMPILED)
        if COMPILED not in self.variants:
            return self.rows
        limits = {budget: self.bytes_of(budget) for budget in options.budgets}
        for budget, nbytes in limits.items():
            self.add(budget, PLANNED, held=nbytes, **self.peak())
            if "failed" in self.rows[budget] and self.peak():
                self.rows[f"{budget}, peak"] = self.rows[budget]
                self.add(budget, PLANNED, held=nbytes)
        if options.sweep:
            self.sweep(options.sweep)
        if options.compiler == "inductor":
            self.search()
        self.time()
        self.time_compilations(limits, first)
        self.compare()
        return self.rows

    def peak(self) -> dict[str, int]:
        """Return the limit on a plan's peak: a share of checkpointing's, where it is asked for."""
        share, row = self.options.peak, self.rows.get(CHECKPOINTING, {})
        return {"peak": int(share * row["peak_bytes"])} if share and "peak_bytes" in row else {}

    def build(self, spec: str | None = None) -> tuple[nn.Module, Tensor]:
        model, x = build(self.make, self.options.device, spec)
        return model, x.repeat(self.options.times, *[1] * (x.dim() - 1))

    def compiler_of(self, kind: str, **limit: int) -> Any:
        """Return what torch.compile takes for a kind of rows, None where nothing is compiled."""
        if kind in (PLANNED, SWEPT):
            return self.backend(**limit)
        return self.options.compiler if kind in (COMPILED, TORCH) else None

    def backend(self, **limit: int) -> Backend:
        """Return the backend for a limit of bytes held or of the peak. Raises InputError."""
        options = self.options
        limits: Row = {"budget" if of == "held" else of: nbytes for of, nbytes in limit.items()}
        given: Row = {"errors": self.errors, "error": options.error, "compiler": options.compiler}
        return backend(**limits, **given)

    def bytes_of(self, budget: str) -> int:
        base, share = share_of(budget)
        return int(share * self.rows[base]["held_bytes"])

    def add(self, setting: str, kind: str, **limit: int) -> None:
        """Measure all of a variant but its time; one that fails is a row, not the end."""
        row = self.rows[setting] = {"kind": kind, "limit": limit}
        try:
            how = self.compiler_of(kind, **limit)
            model, x = self.build("checkpoint" if kind == CHECKPOINTING else None)
            call = loss_of(model, f"loss_of_{len(self.rows)}")
            before = graphs()
            if how is not None:
                call = torch.compile(call, backend=how, dynamic=False)
            step = seeded(call, x)
            step().backward()  # type: ignore[no-untyped-call]
            row["graphs"] = graphs() - before
            model.zero_grad(set_to_none=True)
            row["held_bytes"], row["peak_bytes"] = allocated(model, step)
            row["error"] = self.error_of(model, kind)
        except StopIteration:  # it has no checkpointing of its own
            del self.rows[setting]
            return
        except Exception as problem:
            row["failed"] = told(problem)
            return
        plans = how if isinstance(how, Backend) else None
        self.variants[setting] = Variant(kind, model, step, row, plans)

    def error_of(self, model: nn.Module, kind: str) -> float:
        """Of all gradients, beside eager's; inductor draws others, so beside compiled dense's."""
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        if kind == EAGER or (kind == COMPILED and self.options.compiler == "inductor"):
            self.exact = {name: grad.clone() for name, grad in found.items()}
        whole = sum(float(grad.double().square().sum()) for grad in self.exact.values())
        pairs = ((found[name].double(), grad) for name, grad in self.exact.items())
        return math.sqrt(sum(float((mine - grad).square().sum()) for mine, grad in pairs) / whole)

    def sweep(self, of: Limit) -> None:
        """Add plans from compiled dense's bytes to the least that there is a plan for."""
        most = self.rows[COMPILED][f"{of}_bytes"]
        try:
            least = self.least_held() if of == "held" else self.least_peak(most)
        except Exception as problem:
            self.rows["sweep"] = {"kind": SWEPT, "failed": told(problem)}
            return
        for place, limit in enumerate(swept(most, least, self.options.levels)):
            self.add(f"sweep:{place}", SWEPT, **{of: limit})

    def least_held(self) -> int:
        """Return the bytes of the plan that the solver makes where it minimises them."""
        with mock.patch("actprune.graph.searching.solve", partial(solve, minimise="nbytes")):
            plan = self.planned(held=self.rows[COMPILED]["held_bytes"])
        return max(plan.held, sum(each.held for graph in plan.graphs for each in graph.entries))

    def least_peak(self, most: int) -> int:
        """Return a peak that there is a plan for, near those for which there is none."""
        none = 0
        for _ in range(_HALVINGS):
            limit = (none + most) // 2
            try:
                self.planned(peak=limit)
                most = limit
            except InputError:
                none = limit
        return most

    def planned(self, **limit: int) -> Plan:
        """Return the plan within a limit. Raises InputError."""
        model, x = self.build()
        made = self.backend(**limit)
        seeded(torch.compile(loss_of(model, "planned"), backend=made, dynamic=False), x)()
        return made.plan

    def search(self) -> None:
        """Add torch's budgets that hold what the plans do, or a little more."""
        tried: dict[float, int] = {}
        for planned in [each for each in self.variants.values() if each.kind == PLANNED]:
            wanted = planned.row["held_bytes"]
            low, high = _LOWEST, _HIGHEST
            value = min(max(wanted / self.rows[COMPILED]["held_bytes"], low), high)
            for _ in range(self.options.tries):
                value = round(value, 3)
                if value not in tried:
                    config = import_module("torch._functorch.config")
                    with config.patch(activation_memory_budget=value):
                        self.add(f"torch:{value}", TORCH)
                    tried[value] = self.rows[f"torch:{value}"].get("held_bytes", 0)
                if tried[value] >= wanted:
                    high = value
                else:
                    low = value
                value = (low + high) / 2

    def time(self) -> None:
        """Time the variants in turns, each round beginning with another."""
        timed = list(self.variants.values())
        for number in range(self.options.steps + 1 if self.options.steps else 0):
            start = number % len(timed)
            for variant in timed[start:] + timed[:start]:
                taken = seconds(variant.model, variant.step)
                if number:
                    variant.samples.append(taken * 1e3)

    def time_compilations(self, limits: dict[str, int], first: int) -> None:
        """Time first steps, of dense and of the plans that could be made, in turns."""
        ways = [COMPILED, *(budget for budget in limits if budget in self.variants)]
        for number in range(first, first + self.options.compilations):
            for setting in ways if number % 2 == 0 else ways[::-1]:
                model, x = self.build()
                plans = setting in limits
                how = self.backend(held=limits[setting]) if plans else self.options.compiler
                with cold(how, self.options.compiler):
                    call = torch.compile(loss_of(model, "timed"), backend=how, dynamic=False)
                    begin = time.perf_counter()
                    seeded(call, x)().backward()  # type: ignore[no-untyped-call]
                    taken = time.perf_counter() - begin
                self.rows[setting].setdefault("compile_s", []).append(taken)

    def compare(self) -> None:
        """Fill in what rows are beside others."""
        dense = self.variants[COMPILED]
        for variant in self.variants.values():
            row = variant.row
            for other, suffix in (
                (EAGER, ""),
                (COMPILED, "_compiled"),
                (CHECKPOINTING, "_checkpoint"),
            ):
                for key in ("held", "peak"):
                    if other in self.variants and row["kind"] != other:
                        row[key + suffix] = row[key + "_bytes"] / self.rows[other][key + "_bytes"]
            if variant.samples:
                row |= timing(variant.samples, dense.samples)
            if row.get("compile_s") and variant is not dense:
                medians = map(statistics.median, (row["compile_s"], dense.row["compile_s"]))
                row["compile"] = next(medians) / next(medians)
            if variant.backend is not None:
                row |= predicted(variant.backend.plan, row, dense.row)
        beside_torch(self.rows)


def told(problem: Exception) -> str:
    """An error on one line; what torch.compile wraps says its cause on the second."""
    return " ".join(f"{type(problem).__name__}: {problem}".splitlines()[:2])[:_TOLD]
