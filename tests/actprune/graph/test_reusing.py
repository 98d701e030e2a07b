"""Operators that write over what they read last: what they gave, bit by bit, and nothing lost."""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch._dynamo.backends.debugging import boxed_nop
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from actprune.graph.compiling import backend
from actprune.graph.inductor import compile_by_inductor
from actprune.graph.plan import RECOMPUTE
from actprune.graph.reusing import into, reuse
from actprune.graph.schedule import Run
from tests.planned import assert_same, chosen, first_of, graphs, passes, train
from tests.twins import Net

Step = Callable[[Tensor], Tensor]
STEPS: dict[str, Step] = {
    "gelu": F.gelu,
    "tanh gelu": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "scaled": lambda x: x * 0.5 + 1,
    "gated": lambda x: x * x.flip(0).sigmoid(),
    "twice": lambda x: x + x,
    "its own transpose": lambda x: x + x.t(),
    "widened": lambda x: x[:1] * x,
    "narrowed": lambda x: (x.double() * 2).float(),
    "a view": lambda x: x.view(2, -1).exp().view_as(x) / 4,
    "clamped": lambda x: x.clamp(-1, 1) - x.square(),
}


def net(steps: list[str]) -> tuple[nn.Module, tuple[Tensor]]:
    def forward(m: Net, x: Tensor) -> Any:
        x = m.fc(x)
        for name in steps:
            x = STEPS[name](x)
        return x

    return Net(forward, fc=nn.Linear(12, 12)), (torch.randn(12, 12, requires_grad=True),)


def written(graph: fx.Graph) -> list[str]:
    """The operators of a graph that write over an argument."""
    found = (getattr(node.target, "_schema", None) for node in graph.nodes)
    return [schema.name for schema in found if schema is not None and schema.is_mutable]


@given(st.lists(st.sampled_from(list(STEPS)), min_size=1, max_size=5), st.booleans())
@settings(max_examples=12)
def test_nothing_changes_but_where_results_lie(steps: list[str], again: bool) -> None:
    model, inputs = net(steps)
    wish = first_of(RECOMPUTE) if again else first_of("keep")
    planned = chosen(graphs(model, inputs), wish)
    found = train(model, inputs, planned)
    with mock.patch("actprune.graph.partition.reuse"):
        wanted = train(model, inputs, planned)
    assert_same(found, wanted, tolerance=0)


@pytest.mark.parametrize("name", ["gelu", "silu", "sigmoid", "tanh", "scaled"])
def test_a_gradient_is_written_over_the_one_before(name: str) -> None:
    model, inputs = net([name, "scaled"])
    _, backward, _ = passes(model, inputs, chosen(graphs(model, inputs), first_of("keep")))
    assert written(backward.graph)


def test_code_is_left_to_write_as_it_likes() -> None:
    """inductor compiles graphs without side effects alone."""
    seen = []

    def inner(module: fx.GraphModule, inputs: Any, **_: Any) -> Any:
        seen.append(written(module.graph))
        return boxed_nop(module, inputs)

    model, inputs = net(["gelu", "scaled"])
    by_nothing = partial(compile_by_inductor, inner=inner)
    with mock.patch("actprune.graph.compiling.compile_by_inductor", by_nothing):
        train(model, inputs, backend(0.9), steps=1)
    assert seen == [[], []]


def run_of(function: Callable[..., Any], *inputs: Tensor) -> Run:
    """One pass, whose inputs others hold."""
    with FakeTensorMode() as mode:
        graph = make_fx(function)(*map(mode.from_tensor, inputs)).graph
    (output,) = graph.find_nodes(op="output")
    if not isinstance(output.args[0], tuple | list):
        output.args = ((output.args[0],),)
    return Run(graph, {node.name: () for node in graph.find_nodes(op="placeholder")}, reuse=True)


def over(function: Callable[..., Any], *inputs: Tensor) -> list[str]:
    """What writes over an argument of a function, where it can."""
    run = run_of(function, *inputs)
    reuse(run)
    run.nodes[0].graph.lint()
    return written(run.nodes[0].graph)


def test_what_is_read_later_given_or_returned_stays() -> None:
    x = torch.randn(4, 4)
    assert over(lambda x: x.exp() * 2, x) == ["aten::mul_"]
    assert over(lambda x: x * 2, x) == []  # x is somebody else's
    assert over(lambda x: (y := x.exp(), y * 2), x) == []  # returned
    assert over(lambda x: (y := x.exp()) * 2 + y, x) == ["aten::add_"]  # the first reads y before
    assert over(lambda x: x.exp().t() * x, x) == ["aten::mul_"]  # all of it, as its result lies
    assert over(lambda x: x.exp()[:2] * 2, x) == []  # a part
    assert over(lambda x: (y := x.exp()) * y, x) == []  # both are one
    assert over(lambda x: (y := x.exp()) + y.t(), x) == []  # what it still reads
    assert over(lambda x: x.exp() > 1, x) == []  # of another type
    assert over(lambda x: x[0].exp().expand(4, 4) * 2, x) == []  # the result is larger
    assert over(lambda x: (x.to(torch.complex64).conj() * 2).real, x) == []


def test_a_sum_takes_the_place_of_either() -> None:
    x = torch.randn(4, 4)
    run = run_of(lambda x: x + x.exp(), x)
    reuse(run)
    graph = run.nodes[0].graph
    (made,) = graph.find_nodes(op="call_function", target=torch.ops.aten.add_.Tensor)
    assert str(made.args[0]) == "exp"
    assert over(lambda x: x - x.exp(), x) == []
    assert over(lambda x: torch.add(x, x.exp(), alpha=2), x) == []


def test_the_least_is_counted_before_it_is_written() -> None:
    x = torch.randn(64, 64)

    def function(x: Tensor) -> Tensor:
        return (x.exp() * 2 + 1).sigmoid()

    size = 64 * 64 * 4
    assert max(run_of(function, x).alive) == size
    (output,) = run_of(function, x).nodes[-1:]
    plain = Run(output.graph, {"x_1": ()})
    assert max(plain.alive) == 2 * size


def test_gradients_can_be_asked_for_twice() -> None:
    """What the forward pass keeps, and what the backward pass is given, is never written over."""
    model, (x,) = net(["gelu", "scaled", "relu"])
    run = torch.compile(model, backend=chosen(graphs(model, (x,)), first_of("keep")))
    out = run(x)
    start = torch.randn_like(out)
    whole = start.clone()
    out.backward(start, retain_graph=True)
    assert x.grad is not None
    first, x.grad = x.grad.clone(), None
    out.backward(start)
    assert torch.equal(torch.as_tensor(x.grad), first)
    assert torch.equal(start, whole)


def test_only_what_computes_the_same_is_known() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    aten = torch.ops.aten
    known = {
        aten.mul.Tensor: aten.mul_.Tensor,
        aten.gelu_backward.default: aten.gelu_backward.grad_input,
        aten.masked_fill.Scalar: aten.masked_fill_.Scalar,
        aten.sum.default: None,
        aten.mm.default: None,
        aten.add_.Tensor: None,
    }
    for target, wanted in known.items():
        assert into(graph.call_function(target, (x, x))) is wanted
    assert into(x) is None
