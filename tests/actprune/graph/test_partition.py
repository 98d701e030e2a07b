"""Partitions: keys that outlive sizes, names that sizes do not number, timelines of plans."""

from typing import Any

import torch
from torch import Tensor, nn

from actprune.graph.compiling import backend
from actprune.graph.partition import Partition, Settings
from tests.planned import parts
from tests.twins import Net


def part_of(model: nn.Module, *inputs: Any) -> Partition:
    (part,) = parts(model, inputs, backend(compiler="aot_eager"))
    return part


def sized(m: Net, x: Tensor) -> Any:
    """A model that computes with sizes."""
    rows, features = x.shape
    y = m.fc(x).view(rows * 2, features // 2) * 2
    return (y * y.mean(0)).reshape(-1, features * 4).sin() * y.sum()


def net(width: int = 16) -> Net:
    return Net(sized, fc=nn.Linear(width, width))


def test_a_key_is_that_of_operators_modules_and_parameters() -> None:
    key = part_of(net(), torch.randn(8, 16)).key
    assert part_of(net(), torch.randn(24, 16)).key == key
    assert part_of(net(), torch.randn(8, 16)).key == key
    assert part_of(net(32), torch.randn(8, 32)).key != key
    assert part_of(nn.Sequential(net()), torch.randn(8, 16)).key != key


def test_names_do_not_depend_on_whether_sizes_are_fixed() -> None:
    found = []
    for dynamic in (False, True):
        model, x = net(), torch.randn(8, 16)
        planned = backend(compiler="aot_eager")
        torch._dynamo.reset()
        torch.compile(model, backend=planned, dynamic=dynamic)(x).sum().backward()
        (graph,) = planned.plan.graphs
        found.append((graph.key, [entry.name for entry in graph.entries], graph.held))
    assert found[0] == found[1]


def test_without_limits_the_passes_are_torch_s() -> None:
    part = part_of(net(), torch.randn(8, 16))
    made = part.planned(Settings(), None, 0)
    assert made.passes is part.dense
    assert (made.plan.held, made.plan.peak) == (made.plan.dense, made.plan.dense_peak)
    assert made.plan.timeline == made.plan.dense_timeline
    assert (made.plan.gap, made.plan.error) == (0, 0)
