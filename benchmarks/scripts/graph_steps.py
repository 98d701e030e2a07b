"""Steps of models, compiled or not, and what they allocate, for `benchmarks.scripts.graphs`."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from actprune.graph.compiling import Backend, backend
from benchmarks.scripts.models import Step, held

_BETWEEN = "between the passes"


def allocated(model: nn.Module, step: Step) -> tuple[int, int]:
    """Bytes alive between the passes, the loss apart, and the most in both, by the allocator."""
    if next(model.parameters()).is_cuda:
        return held(model, step)
    model.zero_grad(set_to_none=True)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as made:
        loss = step()
        gc.collect()
        with record_function(_BETWEEN):
            pass
        loss.backward()  # type: ignore[no-untyped-call]
    kineto: Any = made.profiler
    events = kineto.kineto_results.events()
    between = next(each.start_ns() for each in events if each.name() == _BETWEEN)
    memory = [(each.start_ns(), each.nbytes()) for each in events if each.name() == "[memory]"]
    now = peak = kept = 0
    for at, nbytes in sorted(memory, key=lambda each: each[0]):
        now += nbytes
        peak = max(peak, now)
        kept = now if at < between else kept
    return kept - loss.nbytes, peak


def loss_of(model: nn.Module, name: str) -> Callable[[Tensor], Tensor]:
    """The loss of a model, in a code of its own: torch.compile's caches are by code."""

    def loss(x: Tensor) -> Tensor:
        out = model(x)
        logits: Tensor = getattr(out, "logits", out)
        return (logits.float() - 1).square().mean()

    code = loss.__code__.replace(co_name=name)
    return FunctionType(code, loss.__globals__, name, None, loss.__closure__)


def seeded(call: Callable[[Tensor], Tensor], x: Tensor) -> Step:
    """The same draws in every step."""

    def step() -> Tensor:
        torch.manual_seed(1)
        return call(x)

    return step


@contextmanager
def cold(how: Any, compiler: str) -> Iterator[None]:
    """Nothing compiled before, but what every model shares: imports, and headers for C++."""
    torch._dynamo.reset()
    with ExitStack() as stack:
        if compiler == "inductor":
            stack.enter_context(import_module("torch._inductor.utils").fresh_cache())
        tiny = nn.Linear(8, 8)
        same = backend(1.0, compiler=compiler) if isinstance(how, Backend) else how
        call = torch.compile(loss_of(tiny, "tiny"), backend=same, dynamic=False)
        call(torch.randn(8, 8)).backward()  # type: ignore[no-untyped-call]
        yield


def graphs() -> int:
    """How many graphs were compiled so far."""
    counters: Any = import_module("torch._dynamo.utils").counters
    return int(counters["stats"]["unique_graphs"])


def seconds(model: nn.Module, step: Step) -> float:
    """Of both passes: the processor's on a CPU, page faults included, the clock's on CUDA."""
    model.zero_grad(set_to_none=True)
    cuda = next(model.parameters()).is_cuda
    now = time.perf_counter if cuda else time.process_time
    if cuda:
        torch.cuda.synchronize()
    begin = now()
    step().backward()  # type: ignore[no-untyped-call]
    if cuda:
        torch.cuda.synchronize()
    return now() - begin
