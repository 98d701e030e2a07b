"""Models under plans of their graphs, beside the same models in eager mode."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from actprune.graph import options
from actprune.graph.compiling import Backend, backend
from actprune.graph.partition import Partition
from actprune.graph.plan import ABSENT, RECOMPUTE, GraphPlan, Plan
from actprune.solver.items import Item

Result = dict[str, Tensor]


def train(
    model: nn.Module, inputs: tuple[Any, ...], compiled: Any = None, steps: int = 2
) -> Result:
    """What steps on a copy of the model give: outputs, accumulated gradients, buffers, by name.

    compiled: what torch.compile takes as backend; None: eager mode.
    """
    model = copy.deepcopy(model)
    torch._dynamo.reset()
    run = model if compiled is None else torch.compile(model, backend=compiled)
    inputs = tuple(_own(part) for part in inputs)
    found: Result = {}
    torch.manual_seed(1)
    for step in range(steps):
        outputs = [part for part in tree_leaves(run(*inputs)) if isinstance(part, Tensor)]
        found |= {f"output {place} of {step}": part for place, part in enumerate(outputs)}
        scored = [part for part in outputs if part.requires_grad]
        if scored:
            torch.autograd.backward(scored, [_weights(part) for part in scored])
    leaves = {f"input {place}": part for place, part in enumerate(inputs)}
    for name, leaf in {**leaves, **dict(model.named_parameters())}.items():
        if isinstance(leaf, Tensor) and leaf.grad is not None:
            found[f"gradient of {name}"] = leaf.grad
    found |= dict(model.named_buffers())
    return {name: part.detach().clone() for name, part in found.items()}


def _own(part: Any) -> Any:
    if not isinstance(part, Tensor):
        return part
    return part.detach().clone().requires_grad_(part.requires_grad)


def _weights(output: Tensor) -> Tensor:
    """What a loss might give: different for every element, the same every time."""
    count = torch.arange(output.numel(), dtype=torch.float64)
    return (count.sin() + 0.5).view(output.shape).to(output.dtype)


def assert_same(found: Result, wanted: Result, tolerance: float = 1e-12) -> None:
    """Every tensor is the other's, to an error relative to its largest element."""
    assert found.keys() == wanted.keys()
    for name, whole in wanted.items():
        got = found[name]
        assert (got.shape, got.dtype) == (whole.shape, whole.dtype), name
        if not whole.is_floating_point():
            assert torch.equal(got, whole), name
            continue
        most = float(whole.abs().max()) if whole.numel() else 0.0
        torch.testing.assert_close(got, whole, rtol=0, atol=tolerance * max(1.0, most), msg=name)


Graphs = list[tuple[GraphPlan, list[Item]]]


def graphs(model: nn.Module, inputs: tuple[Any, ...]) -> Graphs:
    """The graphs of a model, as torch's own partitioner divides them, and what can be chosen."""
    asked: list[list[Item]] = []

    def listed(*args: Any, **kwargs: Any) -> list[Item]:
        asked.append(options.items(*args, **kwargs))
        return asked[-1]

    dense = backend(compiler="aot_eager")
    with mock.patch("actprune.graph.partition.items", listed):
        train(model, inputs, dense, steps=1)
    return list(zip(dense.plan.graphs, asked, strict=True))


def parts(model: nn.Module, inputs: tuple[Any, ...], planned: Backend) -> list[Partition]:
    """The partitions of the graphs of a model, in the order of compilation."""
    found: list[Partition] = []

    class Noted(Partition):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            found.append(self)

    with mock.patch("actprune.graph.compiling.Partition", Noted):
        train(model, inputs, planned, steps=1)
    return found


Choosing = Callable[[Item], str]


def chosen(found: Graphs, choose: Choosing) -> Backend:
    """A backend that follows the choice of `choose` for every tensor that has one."""
    return backend(plan=Plan(tuple(_edited(*each, choose) for each in found)), compiler="aot_eager")


def _edited(graph: GraphPlan, items: list[Item], choose: Choosing) -> GraphPlan:
    names: Mapping[str, Item] = {item.name: item for item in items}
    entries = [dataclasses.replace(e, choice=choose(names[e.name])) for e in graph.entries]
    return dataclasses.replace(graph, entries=tuple(entries))


def first_of(*wanted: str) -> Choosing:
    """Choose the first of these that an item allows; else that it is held as it is, or again."""

    def choose(item: Item) -> str:
        known = [option.name for option in item.options]
        known += [RECOMPUTE] if item.again is not None else []
        return next((name for name in wanted if name in known), [*known, ABSENT][0])

    return choose


def passes(
    model: nn.Module, inputs: tuple[Any, ...], planned: Backend
) -> tuple[fx.GraphModule, fx.GraphModule, list[Any]]:
    """The graphs of both passes, and what the first one is called with."""
    found: list[fx.GraphModule] = []
    given: list[list[Any]] = []

    def compiler(module: fx.GraphModule, _: Any) -> Any:
        found.append(module)

        def run(arguments: list[Any]) -> Any:
            given.append(list(arguments))
            return module(*arguments)

        run._boxed_call = True  # type: ignore[attr-defined]
        return run

    with mock.patch("actprune.graph.compiling.boxed_nop", compiler):
        train(model, inputs, planned, steps=1)
    forward, backward = found
    return forward, backward, given[0]
