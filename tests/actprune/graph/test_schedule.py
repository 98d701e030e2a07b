"""Predicted bytes against those that are alive while the graphs run, operator by operator."""

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, fx, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from actprune.graph.compiling import backend
from actprune.graph.plan import BITS, KEEP, NARROW, RECOMPUTE
from actprune.graph.schedule import timeline
from tests.planned import chosen, first_of, graphs, passes
from tests.twins import Net

Case = tuple[nn.Module, tuple[Any, ...]]


class Meter:
    """Runs a graph as its code does, and notes the bytes alive after each operator."""

    def __init__(self, ignored: list[Any]) -> None:
        self.ignored = {_key(part) for part in tree_leaves(ignored) if isinstance(part, Tensor)}
        self.known: dict[int, tuple[StorageWeakRef, int]] = {}

    def bytes(self) -> int:
        self.known = {key: each for key, each in self.known.items() if not each[0].expired()}  # type: ignore[no-untyped-call]
        return sum(size for _, size in self.known.values())

    def note(self, made: Any) -> None:
        for part in tree_leaves(made):
            if isinstance(part, Tensor) and _key(part) not in self.ignored:
                storage = part.untyped_storage()
                known = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self.known[_key(part)] = known, storage.nbytes()

    @torch.no_grad()
    def run(self, graph: fx.Graph, arguments: list[Any]) -> tuple[list[int], tuple[Any, ...]]:
        """`arguments` is emptied: nobody else holds them."""
        env: dict[fx.Node, Any] = {}
        last = {part: node for node in graph.nodes for part in node.all_input_nodes}
        alive = []
        self.note(arguments)
        for node in graph.nodes:
            if node.op == "placeholder":
                env[node] = arguments.pop(0)
            elif node.op == "call_function":
                args, kwargs = fx.map_arg((node.args, node.kwargs), env.__getitem__)
                env[node] = node.target(*args, **kwargs)
                del args, kwargs
                self.note(env[node])
                alive.append(self.bytes())
            else:
                assert node.op == "output"
                return alive, tuple(fx.map_arg(node.args[0], env.__getitem__))
            for part in [*node.all_input_nodes, node]:
                if last.get(part, node) is node:
                    env.pop(part, None)
        raise AssertionError("no output")


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


def mlp() -> Case:
    parts = nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 8), nn.Softmax(-1)
    return nn.Sequential(*parts), (torch.randn(128, 64),)


def conv() -> Case:
    parts = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(*parts, nn.Conv2d(8, 4, 3)), (torch.randn(8, 2, 16, 16),)


def views() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        a, b = m.fc(x).sin().chunk(2, -1)
        y = (a * b.t().contiguous().t()).view(64, 64).exp()
        out: Tensor = y.expand(2, 64, 64).permute(1, 0, 2) * x[:, None]
        return out

    return Net(forward, fc=nn.Linear(64, 128)), (torch.randn(64, 64),)


def many_results() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        a, _, c = m.fc(x).split(32, -1)
        top, which = (a * c).topk(4, -1)
        var, mean = torch.var_mean(a.sigmoid(), 0)
        return top, which, var, (a > 0).float() * c, mean.exp()

    return Net(forward, fc=nn.Linear(64, 96)), (torch.randn(64, 64),)


def outputs() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        y = m.fc(x).sigmoid()
        z = (y * x).tanh()
        return y, z.t(), x[2:], m.fc(z).relu(), z.relu() * 2

    return Net(forward, fc=nn.Linear(64, 64)), (torch.randn(64, 64, requires_grad=True),)


def attention() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        q, k, v = m.qkv(x).view(2, 32, 3, 4, 16).permute(2, 0, 3, 1, 4)
        heads = nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = m.out(heads.transpose(1, 2).flatten(2))
        return out

    return Net(forward, qkv=nn.Linear(64, 192), out=nn.Linear(64, 64)), (torch.randn(2, 32, 64),)


CASES = mlp, conv, views, many_results, outputs, attention
CHOICES = {
    "keep": (KEEP,),
    "recompute": (RECOMPUTE,),
    "codes": (BITS, NARROW, "codes:bits=4", KEEP),
    "codes and recompute": (BITS, NARROW, "codes:bits=8", RECOMPUTE),
}


@pytest.mark.parametrize("kind", ["torch", *CHOICES])
@pytest.mark.parametrize("case", CASES)
def test_prediction_is_what_is_alive(
    case: Callable[[], Case], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actprune.graph.schedule.scratch", Mock(return_value=0))  # storages alone
    model, inputs = case()
    if kind == "torch":
        planned = backend(compiler="aot_eager")
    else:
        planned = chosen(graphs(model, inputs), first_of(*CHOICES[kind]))
    forward, backward, arguments = passes(model, inputs, planned)
    (graph,) = planned.plan.graphs

    (ends,) = forward.graph.find_nodes(op="output")
    saved = backward.graph.find_nodes(op="placeholder")
    tangents = [node for node in saved if "tangents" in str(node.target)]
    count = len(ends.args[0]) - (len(saved) - len(tangents))
    predicted = timeline(forward.graph, backward.graph, count)
    given = list(arguments)

    meter = Meter(given)
    alive, results = meter.run(forward.graph, arguments)
    assert alive == list(predicted.forward)
    kept = list(results[count:])
    names = [part.name for part in ends.args[0][count:]]
    starts = [torch.ones(node.meta["val"].shape) for node in tangents]
    del results
    assert meter.bytes() == predicted.held
    assert [node.name for node in saved] == [*names, *(node.name for node in tangents)]
    arguments[:] = [*kept, *starts]
    del kept, starts
    alive, _ = meter.run(backward.graph, arguments)
    assert alive == list(predicted.backward)
    if kind != "torch":
        assert (graph.held, graph.timeline) == (
            predicted.held,
            predicted.forward + predicted.backward,
        )
        assert graph.peak == predicted.peak
