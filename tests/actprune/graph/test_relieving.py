"""Relieved backward passes: what is made once more is the same, and the peak is no higher."""

import copy
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from actprune.graph import rewriting
from actprune.graph.costs import seconds
from actprune.graph.options import SMALL
from actprune.graph.ordering import early
from actprune.graph.plan import RECOMPUTE
from actprune.graph.relieving import relieve
from actprune.graph.schedule import VALUE, Timeline, runs, timeline
from actprune.solver.items import Item
from tests.actprune.graph.test_schedule import Meter
from tests.planned import assert_same, chosen, first_of, graphs, passes, train
from tests.twins import Net

CODES = "codes:bits=8"
Case = tuple[nn.Module, tuple[Any, ...]]
Step = Callable[[Net, Tensor], Tensor]


@dataclass
class Told:
    """What relieving one graph did."""

    before: Timeline
    after: Timeline
    spent: float
    made: float
    """Seconds of the operators that were added."""


@contextmanager
def relieving(limit: int, allowed: float) -> Iterator[list[Told]]:
    """Let every backward pass that a plan makes be relieved."""
    found: list[Told] = []
    split = rewriting.split

    def relieved(module: Any, inputs: Any, **options: Any) -> Any:
        forward, backward = split(module, inputs, **options)
        both = forward.graph, backward.graph, options["num_fwd_outputs"]
        early(backward.graph)
        before, cost = timeline(*both, reuse=True), sum(map(seconds, backward.graph.nodes))
        spent = relieve(runs(*both, reuse=True)[0], backward.graph, both[2], limit, allowed)
        backward.graph.lint()
        backward.recompile()
        made = sum(map(seconds, backward.graph.nodes)) - cost
        found.append(Told(before, timeline(*both, reuse=True), spent, made))
        return forward, backward

    patched = mock.patch("actprune.graph.partition.split", relieved)
    with patched, mock.patch("actprune.graph.partition.early"):  # ordered before it is relieved
        yield found


def sines(m: Net, x: Tensor) -> Tensor:
    return x.sin()


def linear(m: Net, x: Tensor) -> Tensor:
    out: Tensor = m.fc(x)
    return out


def wide(m: Net, x: Tensor) -> Tensor:
    """Four times as much, for a moment."""
    return (
        (torch.cat((x, x.cos(), x.tanh(), x.sigmoid()), -1).sin() ** 2).view(*x.shape, 4).mean(-1)
    )


def parted(m: Net, x: Tensor) -> Tensor:
    a, b = x.exp().chunk(2, -1)
    return torch.cat((a * b, b.tanh()), -1)


def several(m: Net, x: Tensor) -> Tensor:
    """Operators of several results, of which one or all are read."""
    var, mean = torch.var_mean(x, -1, keepdim=True)
    top, where = x.sort(-1)
    return F.layer_norm(x, (x.shape[-1],)) * top + var * mean + where / 9


def turned(m: Net, x: Tensor) -> Tensor:
    y = x.cos().t()
    return (y[:8].exp().sum(0) * y).t() + y.reshape(x.shape)


STEPS: list[Step] = [sines, linear, wide, parted, several, turned]


def chain(steps: list[Step], rows: int = 4) -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        x = m.fc(x)
        for step in steps:
            x = step(m, x) / 2
        return x

    model = Net(forward, fc=nn.Linear(16, 16)).double()
    return model, (torch.randn(rows, 16, dtype=torch.float64),)


@given(
    steps=st.lists(st.sampled_from(STEPS), min_size=2, max_size=6),
    share=st.sampled_from((0.0, 0.6, 0.8)),
    allowed=st.sampled_from((1.0, 2e-4)),
    wish=st.sampled_from(((RECOMPUTE,), ("codes:bits=8", RECOMPUTE))),
)
@example(steps=[sines] * 6, share=0.0, allowed=1.0, wish=(RECOMPUTE,))
@example(steps=[wide, sines, wide, several], share=0.0, allowed=1.0, wish=(RECOMPUTE,))
@settings(max_examples=4)
def test_gradients_stay_and_the_peak_never_rises(
    steps: list[Step], share: float, allowed: float, wish: tuple[str, ...]
) -> None:
    model, inputs = chain(steps, rows=4 if wish == (RECOMPUTE,) else SMALL // 8)
    planned = chosen(graphs(model, inputs), first_of(*wish))
    with relieving(0, 0.0) as nothing:
        wanted = train(model, inputs, planned, steps=1)
    assert all((told.spent, told.made) == (0, 0) for told in nothing)
    limit = int(share * nothing[0].before.peak)
    with relieving(limit, allowed) as found:
        assert_same(train(model, inputs, planned, steps=1), wanted, tolerance=1e-12)
    if wish == (RECOMPUTE,):
        assert_same(wanted, train(model, inputs, steps=1))
    for told in found:
        assert max(told.after.backward) <= max(told.before.backward)
        assert told.after.held == told.before.held
        assert told.spent <= allowed
        assert told.made == pytest.approx(told.spent, abs=1e-9)
        if max(told.before.backward) <= limit:
            assert told.spent == 0


def test_a_copy_is_made_of_another_copy() -> None:
    """Of a chain computed once more, each but the last lies idle at the peak."""

    def forward(m: Net, x: Tensor) -> Any:
        x = m.fc(x)
        for _ in range(8):
            x = x.sin()
        return x

    model = Net(forward, fc=nn.Linear(16, 16)).double()
    inputs = (torch.randn(4, 16, dtype=torch.float64),)
    planned = chosen(graphs(model, inputs), first_of(RECOMPUTE))
    with relieving(0, 1.0) as found:
        _, backward, _ = passes(model, inputs, planned)
    (told,) = found
    size = 4 * 16 * 8
    assert max(told.before.backward) >= 8 * size
    assert max(told.after.backward) <= max(told.before.backward) - 3 * size
    names = Counter(node.meta.get(VALUE) for node in backward.graph.nodes)
    twice = {name for name, count in names.items() if name is not None and count > 1}
    nodes = [node for node in backward.graph.nodes if node.meta.get(VALUE) in twice]
    later = {node.meta[VALUE]: node for node in nodes}  # the last of each
    assert any(later.get(part.meta.get(VALUE)) is part for n in nodes for part in n.args)


def test_a_chain_of_sums_is_made_again_from_what_is_held() -> None:
    """Of a sum of branches in codes, by as many operators as it takes: each is idle at the peak."""

    def forward(m: Net, x: Tensor) -> Any:
        for place in range(24):
            x = x + m.fc(x.sin() * (place + 1)).cos()
        return x

    model, rows = Net(forward, fc=nn.Linear(16, 16)).double(), SMALL // 16
    inputs = (torch.randn(rows, 16, dtype=torch.float64),)

    def choose(item: Item) -> str:
        branch = item.name.startswith("cos") and not item.needed
        return CODES if branch and item.options[1:] else RECOMPUTE

    planned = chosen(graphs(model, inputs), choose)
    with relieving(0, 0.0) as nothing:
        wanted = train(model, inputs, planned, steps=1)
    with relieving(0, 1.0) as found:
        assert_same(train(model, inputs, planned, steps=1), wanted, tolerance=1e-12)
    before, after = (max(told[0].after.backward) for told in (nothing, found))
    assert found[0].spent > 0
    assert after < 0.45 * before  # by one operator each, half would stay


@pytest.mark.parametrize("steps", [[sines] * 6, [wide, several, sines], [several] * 3, STEPS])
def test_prediction_is_what_is_alive(steps: list[Step], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actprune.graph.schedule.scratch", mock.Mock(return_value=0))
    model, inputs = chain(steps)
    planned = chosen(graphs(model, inputs), first_of(RECOMPUTE))
    with relieving(0, 1.0) as found:
        forward, backward, arguments = passes(model, inputs, planned)
    (told,) = found
    assert told.spent > 0
    (ends,) = forward.graph.find_nodes(op="output")
    saved = backward.graph.find_nodes(op="placeholder")
    tangents = [node for node in saved if "tangents" in str(node.target)]
    count = len(ends.args[0]) - (len(saved) - len(tangents))
    given = list(arguments)
    meter = Meter(given)
    alive, results = meter.run(forward.graph, arguments)
    assert alive == list(told.after.forward)
    kept = list(results[count:])
    starts = [torch.ones(node.meta["val"].shape, dtype=torch.float64) for node in tangents]
    del results
    arguments[:] = [*kept, *starts]
    del kept, starts
    alive, _ = meter.run(backward.graph, arguments)
    assert alive == list(told.after.backward)


def test_nothing_is_made_once_more_for_less_time_than_it_takes() -> None:
    model, inputs = chain([sines] * 6)
    planned = chosen(graphs(model, inputs), first_of(RECOMPUTE))
    with relieving(0, 1e-9) as found:
        train(model, inputs, planned, steps=1)
    assert found[0].spent == 0
    assert found[0].after == found[0].before


def test_other_results_that_come_along_are_no_new_peak() -> None:
    """What sorting gives lies idle at the peak; made once more, its indices would be there too."""

    def made(x: Tensor) -> Any:
        least = torch.ops.aten.sort.default(x)[0]
        first = torch.cat((least.sin(), x, x, x)).sum()  # the peak
        later = torch.cat((x, x, x, x))
        return least.sum() + later.sum() + first

    with FakeTensorMode():
        graph = make_fx(made)(torch.empty(128)).graph
    (output,) = graph.find_nodes(op="output")
    output.args = ((output.args[0],),)
    graph.eliminate_dead_code()
    (node,) = graph.find_nodes(op="call_function", target=operator.getitem)
    node.meta[VALUE] = "least"
    forward = fx.Graph()
    forward.output((forward.placeholder(graph.find_nodes(op="placeholder")[0].name),))

    def peak() -> int:
        return timeline(forward, graph, 0).peak

    before = peak()
    with mock.patch("actprune.graph.relieving._rises", return_value=False):
        risen = copy.deepcopy(graph)
        spent = relieve(runs(forward, risen, 0)[0], risen, 0, 0, 1.0)
    assert spent > 0
    assert timeline(forward, risen, 0).peak > before
    relieve(runs(forward, graph, 0)[0], graph, 0, 0, 1.0)
    assert peak() == before
