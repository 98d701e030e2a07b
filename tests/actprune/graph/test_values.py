"""What the values of a joint graph are: storages, readers, and whether they repeat."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from actprune.graph.compiling import backend
from actprune.graph.values import Joint, Value, hint, is_view, nbytes, repeats, tensors
from tests.planned import parts
from tests.twins import Net

aten: Any = torch.ops.aten


def joint(forward: Callable[..., Any], *inputs: Any, **modules: Any) -> Joint:
    """The graph of a function of modules and inputs."""
    (part,) = parts(Net(forward, **modules), inputs, backend(compiler="aot_eager"))
    return part.joint


def named(graph: Joint, name: str) -> Value:
    """The first value whose operator's name has this in it."""
    return next(value for node, value in graph.values.items() if name in str(node.target))


def test_a_value_is_a_storage_and_its_views() -> None:
    def forward(m: Net, x: Tensor) -> Any:
        y = m.fc(x).sin()
        a, b = y.view(4, 2, 8).transpose(0, 1).unbind(0)
        return a * b, y[1:].exp() * y.as_strided((3, 16), (16, 1)), y.t().contiguous().cos()

    graph = joint(forward, torch.randn(4, 16), fc=nn.Linear(16, 16))
    sine = named(graph, "sin.default")
    targets = {str(node.target) for node in sine.nodes}
    assert {"aten.view.default", "aten.unbind.int", "aten.slice.Tensor"} <= targets
    assert sine.nodes[0] is sine.node
    assert sine.nbytes == 4 * 16 * 4
    assert named(graph, "clone").node is not sine.node
    for value in graph.values.values():
        assert value.node in value.nodes
        assert all(graph.values[node] is value for node in value.nodes)


def test_what_is_needed_comes_after_what_it_is_computed_from() -> None:
    def forward(m: Net, x: Tensor) -> Any:
        for _ in range(3):
            x = x + F.gelu(m.norm(m.fc(x)))
        return x

    graph = joint(forward, torch.randn(8, 16), fc=nn.Linear(16, 16), norm=nn.LayerNorm(16))
    needed = graph.needed()
    places = {value: place for place, value in enumerate(needed)}
    assert len(places) == len(needed)
    for value in needed:
        assert all(places[part] < places[value] for part in value.inputs)
        assert all(reader in graph.backward for reader, _ in value.readers)
    assert {value for value in graph.values.values() if value.readers} <= set(needed)


def dropped(m: Net, x: Tensor) -> Any:
    return F.dropout(m.fc(x), 0.3).sin()


def noisy(m: Net, x: Tensor) -> Any:
    return (m.fc(x) * torch.rand_like(x)).sin() * torch.randn(16).exp()


def test_random_numbers_are_not_drawn_again() -> None:
    x, fc = torch.randn(8, 16), nn.Linear(16, 16)
    for forward, names in ((dropped, ["bernoulli", "dropout"]), (noisy, ["rand", "randn"])):
        graph = joint(forward, x, fc=fc)
        for node, value in graph.values.items():
            target = str(node.target)
            if any(name in target for name in names):
                assert not value.again, target
        assert named(graph, "addmm").again


@pytest.mark.parametrize("p", [0.0, 0.25])
def test_attention_repeats_where_it_drops_nothing(p: float) -> None:
    def forward(m: Net, x: Tensor) -> Any:
        q = m.fc(x).view(2, 2, 8, 4)
        return F.scaled_dot_product_attention(q, q, q, dropout_p=p)

    graph = joint(forward, torch.randn(8, 16), fc=nn.Linear(16, 16))
    drawn = [v for n, v in graph.values.items() if "attention" in str(n.target)]
    drawn += [v for n, v in graph.values.items() if "dropout" in str(n.target)]
    assert drawn
    assert all(value.again == (p == 0) for value in drawn)


def test_statistics_do_not_repeat_but_the_result_does() -> None:
    def forward(m: Net, x: Tensor) -> Any:
        return m.norm(m.fc(x)).relu()

    graph = joint(forward, torch.randn(8, 16), fc=nn.Linear(16, 16), norm=nn.BatchNorm1d(16))
    norm = named(graph, "batch_norm")
    results = [value for value in graph.values.values() if value.node.args[:1] == (norm.node,)]
    assert not norm.again
    for value in results:
        assert value.again == (value.node.args[1] == 0)
        if value.again:
            assert norm not in value.inputs
            assert {part.node.args[1] for part in value.inputs if part in results} == {1, 2}


def test_what_reads_a_changed_input_does_not_repeat() -> None:
    def forward(m: Net, x: Tensor) -> Any:
        y = m.fc(x) * m.scale.sin()
        m.scale.add_(1)
        return y.tanh()

    graph = joint(forward, torch.randn(8, 16), fc=nn.Linear(16, 16), scale=torch.ones(16))
    assert not named(graph, "sin.default").again
    assert named(graph, "tanh").again


def test_sizes_that_are_not_fixed_count_as_they_were_traced() -> None:
    def forward(m: Net, y: Tensor) -> Any:
        return m.fc(y).sin().exp()

    x = torch.empty(3, 5, dtype=torch.bfloat16)
    assert (hint(7), nbytes(x)) == (7, 30)
    planned = backend(compiler="aot_eager")
    run = torch.compile(Net(forward, fc=nn.Linear(16, 16)), backend=planned, dynamic=True)
    run(torch.randn(24, 16)).sum().backward()
    assert planned.plan.held == 2 * 24 * 16 * 4


def test_views_and_repetition_of_operators() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    view = graph.call_function(aten.view.default, (x, [4]))
    copy = graph.call_function(aten.clone.default, (x,))
    written = graph.call_function(aten.copy_.default, (x, copy))
    rand = graph.call_function(aten.rand_like.default, (x,))
    wrapped = graph.call_function(aten.alias.default, (x,))
    assert [is_view(node) for node in (x, view, copy, written, rand, wrapped)] == [
        *(False, True, False, True, False, True)
    ]
    assert [repeats(node, set()) for node in (view, copy, written, rand)] == [
        *(True, True, False, False)
    ]
    assert not repeats(copy, {x})
    view.meta["val"] = [torch.ones(2), 3, None]
    assert [len(part) for part in tensors(view)] == [2]


def test_another_s_operator_runs_once_unless_it_is_known() -> None:
    """It might draw random numbers, or count its calls."""

    @torch.library.custom_op("somebody::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return x * 2

    assert twice is not None
    node = fx.Graph().call_function(torch.ops.somebody.twice.default)
    assert not repeats(node, set())
    with mock.patch("actprune.graph.values._KNOWN", ("somebody::twice",)):
        assert repeats(node, set())
