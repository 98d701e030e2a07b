"""Weight gradients that come first: what they read is gone when the others are computed."""

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, fx, nn

from actprune.graph.ordering import early
from actprune.graph.plan import RECOMPUTE
from tests.planned import assert_same, chosen, first_of, graphs, passes, train
from tests.twins import Net

_aten: Any = torch.ops.aten


def mlp() -> tuple[nn.Module, tuple[Tensor]]:
    def forward(m: Net, x: Tensor) -> Any:
        y = m.second(m.first(x).sin().cos())
        return (m.third(y.sin()) * m.scale).cos()

    parts = {"first": nn.Linear(8, 32), "second": nn.Linear(32, 8), "third": nn.Linear(8, 8)}
    model = Net(forward, **parts).double()
    model.scale = nn.Parameter(torch.randn(8, dtype=torch.float64))
    return model, (torch.randn(64, 8, dtype=torch.float64, requires_grad=True),)


def conv() -> tuple[nn.Module, tuple[Tensor]]:
    def forward(m: Net, x: Tensor) -> Any:
        return m.second(m.norm(m.first(x).sin()).cos()).sin()

    parts = {"first": nn.Conv2d(2, 8, 3), "norm": nn.BatchNorm2d(8), "second": nn.Conv2d(8, 2, 3)}
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    return Net(forward, **parts).double(), (x,)


@pytest.mark.parametrize("case", [mlp, conv])
def test_gradients_stay_to_the_last_bit(case: Any) -> None:
    model, inputs = case()
    planned = chosen(graphs(model, inputs), first_of(RECOMPUTE))
    found = train(model, inputs, planned)
    with mock.patch("actprune.graph.partition.early"):
        assert_same(found, train(model, inputs, planned), tolerance=0)


def test_a_factor_is_gone_before_the_input_s_gradient() -> None:
    model, inputs = mlp()
    planned = chosen(graphs(model, inputs), first_of(RECOMPUTE))

    def places() -> list[str]:
        """Whether each product is of a weight or of an input, in order."""
        _, backward, _ = passes(model, inputs, planned)
        backward.graph.lint()
        made = [node for node in backward.graph.nodes if node.target is _aten.mm.default]
        shapes = [tuple(node.meta["val"].shape) for node in made]
        return ["input" if shape[0] == 64 else "weight" for shape in shapes]

    assert places() == ["weight", "input"] * 2 + ["input", "weight"]  # the batch stays anyway
    with mock.patch("actprune.graph.partition.early"):
        assert places() == ["input", "weight"] * 3


def test_the_order_stays_one_in_which_all_is_there() -> None:
    """Two results share what they need, which one of them needs first."""
    graph = fx.Graph()
    tangent, kept = graph.placeholder("tangents_1"), graph.placeholder("kept")
    first = graph.call_function(_aten.sin.default, (tangent,))
    other = graph.call_function(_aten.cos.default, (first,))
    shared = graph.call_function(_aten.exp.default, (kept,))
    late = graph.call_function(_aten.mul.Tensor, (other, shared))
    soon = graph.call_function(_aten.mul.Tensor, (first, shared))
    graph.output((late, soon, other))
    for node in graph.nodes:
        node.meta["val"] = torch.empty(4, device="meta")
    shared.meta["actprune_value"] = "shared"
    early(graph)
    graph.lint()
    names = [node.name for node in graph.nodes if node.op == "call_function"]
    assert names == [node.name for node in (first, shared, soon, other, late)]


def test_the_same_graph_has_the_same_order() -> None:
    """Of two gradients that become possible at once, the one whose result comes first."""

    def forward(m: Net, x: Tensor) -> Any:
        y = x.sin()
        return m.first(y) + m.second(y) + m.third(y)

    parts = {name: nn.Linear(8, 8) for name in ("first", "second", "third")}
    model, inputs = Net(forward, **parts), (torch.randn(4, 8),)
    planned = chosen(graphs(model, inputs), first_of(RECOMPUTE))
    orders = set()
    for _ in range(8):
        _, backward, _ = passes(model, inputs, planned)
        orders.add(tuple(node.name for node in backward.graph.nodes))
    assert len(orders) == 1
