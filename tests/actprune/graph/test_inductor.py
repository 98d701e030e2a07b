"""Under inductor, which lays tensors out as it likes, stores hold the elements that they should."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from actprune.graph.compiling import backend
from actprune.graph.options import ERRORS
from benchmarks.scripts.graph_steps import allocated
from tests.twins import Net

pytestmark = pytest.mark.slow


def transposed(m: Net, x: Tensor) -> Any:
    y = m.fc(x).view(4, 16, 8, 8).permute(0, 2, 3, 1)
    z = (y.sin() + y.contiguous().cos()).exp()
    w = (z.transpose(1, 3) * y.transpose(1, 3).contiguous()).sigmoid()
    return w * z.transpose(1, 3).tanh()


def added(m: Net, x: Tensor) -> Any:
    y = m.fc(x).view(64, 64)
    return ((y.t() + y[:, :1]).sin().exp() * y).sigmoid().square() * y.t().cos()


def attention(m: Net, x: Tensor) -> Any:
    q, k, v = (m.fc(part).view(4, 16, 4, 16).transpose(1, 2) for part in (x, x + 1, x - 1))
    heads = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    return heads.flatten(2).sin() * x.cos()


def convolved(m: Net, x: Tensor) -> Any:
    y = m.conv(m.fc(x).view(4, 4, 16, 16))
    y = (m.conv(y.contiguous(memory_format=torch.channels_last)).relu() * y.sigmoid()).exp()
    return y.mean(1).tanh() * y[:, 0]


MODELS = transposed, added, attention, convolved


@pytest.mark.parametrize("keep", ["@*=>codes:bits=8", 0.4])
@pytest.mark.parametrize("function", MODELS)
def test_layouts(function: Any, keep: Any) -> None:
    model = Net(function, fc=nn.Linear(64, 64), conv=nn.Conv2d(4, 4, 3, padding=1))
    x = torch.randn(4, 16, 64) if function is not added else torch.randn(64, 64)
    planned = backend(keep)
    found = []
    for run in (torch.compile(model, backend=planned), model):
        model.zero_grad()
        run(x).square().sum().backward()
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append(torch.cat(grads))
    got, wanted = found
    used = {entry.choice for entry in planned.plan.graphs[0].entries}
    assert used & {"codes:bits=8", "codes:bits=4"}
    bits = 8 if isinstance(keep, str) else 4
    assert float((got - wanted).norm()) <= 4 * ERRORS[bits] * float(wanted.norm())


def test_a_plan_of_convolutions_holds_what_it_says() -> None:
    """By torch's allocator; inductor would hold another copy of what a convolution takes."""
    parts = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.GELU()]
    model, x = nn.Sequential(*parts, nn.AvgPool2d(4)), torch.randn(8, 3, 32, 32)
    planned = backend(0.3)
    run = torch.compile(model, backend=planned)

    def step() -> Tensor:
        loss: Tensor = run(x).square().mean()
        return loss

    step().backward()  # type: ignore[no-untyped-call]
    held, _ = allocated(model, step)
    (graph,) = planned.plan.graphs
    result = 8 * 16 * 7 * 7 * 4  # what the loss outside of the graph holds
    assert graph.held <= 0.3 * graph.dense
    assert held <= graph.held + result
