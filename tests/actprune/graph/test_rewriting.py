"""Rewritten graphs: whatever is kept or computed again, the gradients are eager mode's."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from actprune.graph.plan import KEEP, RECOMPUTE
from tests.planned import Graphs, Result, assert_same, chosen, first_of, graphs, train
from tests.twins import Net

Case = tuple[nn.Module, tuple[Any, ...]]


def wide(*size: int, grad: bool = False) -> Tensor:
    return torch.randn(size, dtype=torch.float64, requires_grad=grad)


def mlp() -> Case:
    parts = nn.Linear(6, 12), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 6), nn.SiLU()
    return nn.Sequential(*parts), (wide(5, 6),)


def attention_by_softmax() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        q, k, v = m.qkv(x).view(2, 5, 3, 2, 4).permute(2, 3, 0, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) / 2).softmax(-1)
        out: Tensor = m.out((weights @ v).permute(1, 2, 0, 3).reshape(2, 5, 8))
        return out

    return Net(forward, qkv=nn.Linear(8, 24), out=nn.Linear(8, 8)), (wide(2, 5, 8),)


def attention() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        q, k, v = m.qkv(x).view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = m.out(heads.transpose(1, 2).flatten(2))
        return out

    return Net(forward, qkv=nn.Linear(8, 24), out=nn.Linear(8, 8)), (wide(2, 5, 8),)


def conv() -> Case:
    parts = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3)
    return nn.Sequential(*parts), (wide(3, 2, 6, 6),)


def conv_in_eval() -> Case:
    model, inputs = conv()
    return model.eval(), inputs


def norm_without_parameters() -> Case:
    parts = nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4, affine=False, momentum=0.3), nn.Hardswish()
    return nn.Sequential(*parts), (wide(3, 2, 6),)


def norms() -> Case:
    parts = nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1), nn.InstanceNorm2d(4), nn.RMSNorm(6)
    return nn.Sequential(*parts), (wide(3, 4, 6, 6, grad=True),)


def norm_without_statistics() -> Case:
    return nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False), nn.Tanh()), (
        wide(5, 6, grad=True),
    )


def norm_in_a_residual_chain() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        for conv, norm in zip(m.convs, m.norms, strict=True):
            x = x + norm(conv(x)).relu()
        return x

    parts = {
        "convs": nn.ModuleList(nn.Conv2d(2, 2, 3, padding=1) for _ in range(3)),
        "norms": nn.ModuleList(nn.BatchNorm2d(2) for _ in range(3)),
    }
    return Net(forward, **parts), (wide(3, 2, 4, 4),)


def pooled() -> Case:
    parts = nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    return nn.Sequential(*parts, nn.Linear(27, 4)), (wide(3, 2, 6, 6),)


def tied() -> Case:
    def forward(m: Net, ids: Tensor) -> Any:
        return F.linear(m.norm(m.table(ids)), m.table.weight)

    tokens = torch.randint(9, (3, 4))
    return Net(forward, table=nn.Embedding(9, 6), norm=nn.LayerNorm(6)), (tokens,)


def many_results() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        a, b = m.fc(x).chunk(2, -1)
        c, d, e = (a * b.sigmoid()).split([2, 1, 3], -1)
        top, where = (c.exp() * d).topk(2, 0)
        most, which = e.tanh().max(0)
        return top + where, most, which, torch.var_mean(a * b, 0)

    return Net(forward, fc=nn.Linear(6, 12)), (wide(5, 6),)


def residual() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        for fc in m.layers:
            x = x + F.gelu(fc(x)) * x.sigmoid()
        return x

    return Net(forward, layers=nn.ModuleList(nn.Linear(6, 6) for _ in range(3))), (wide(5, 6),)


def views() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        y = m.fc(x).sin()
        parts = y[1:, ::2].exp() * y[:-1, 1::2], y.select(1, 2).expand(3, 5) ** 2
        turned = y.t().cos() @ y
        strided = y.as_strided((4, 3), (6, 2), 1).exp()
        last = y.view(5, 2, 3, 1).contiguous(memory_format=torch.channels_last).sin().square()
        return sum((part.square().sum() for part in (*parts, turned, strided)), last.sum())

    return Net(forward, fc=nn.Linear(6, 6)), (wide(5, 6),)


def channels_last() -> Case:
    model, (x,) = conv()
    last = torch.channels_last
    model.to(memory_format=last)  # type: ignore[call-overload]
    return model, (x.contiguous(memory_format=last),)


def in_place() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        y = m.fc(x).relu_()
        z = m.fc(y).add_(1).sin()
        z[:, 1] = 2 * y[:, 0]
        z[0].mul_(3)
        return z.exp_() * y

    return Net(forward, fc=nn.Linear(6, 6)), (wide(5, 6),)


def integers_and_masks() -> Case:
    def forward(m: Net, x: Tensor, ids: Tensor, mask: Tensor) -> Any:
        y = m.fc(x)
        order = y.argsort(-1)
        y = torch.where((y > 0) & mask, y.gather(1, order) ** 2, y.sin())
        y = y.masked_fill(~mask, 0.5).index_select(0, ids).cumsum(0)
        return y.clamp(-1, 1) * y.abs(), order, mask.logical_not()

    ids, mask = torch.tensor([4, 0, 0, 2]), torch.rand(5, 6) > 0.3
    return Net(forward, fc=nn.Linear(6, 6)), (wide(5, 6), ids, mask)


def outputs_that_are_saved() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        y = m.fc(x).sigmoid()
        z = (y * x).tanh()
        return y, z, z.t(), m.fc(z).exp()

    return Net(forward, fc=nn.Linear(6, 6)), (wide(5, 6),)


def views_of_inputs() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        return x.t(), x[1:3], x, m.weight.view(-1), m.weight * x

    return Net(forward, weight=nn.Parameter(wide(5, 6))), (wide(5, 6, grad=True),)


def gradients_of_inputs() -> Case:
    def forward(m: Net, x: Tensor, y: Tensor) -> Any:
        return (m.fc(x).exp() * y.sin()) / (1 + x.square())

    return Net(forward, fc=nn.Linear(6, 6)), (wide(5, 6, grad=True), wide(5, 6, grad=True))


def frozen() -> Case:
    model, inputs = mlp()
    for parameter in list(model.parameters())[:3]:
        parameter.requires_grad_(False)
    return model, inputs


def used_twice() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        return F.linear(m.fc(m.fc(x).tanh()), m.fc.weight.square()).sigmoid()

    return Net(forward, fc=nn.Linear(6, 6)), (wide(5, 6),)


def a_value_as_gradient() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        return (m.weight * x.exp().sin()).sum()

    return Net(forward, weight=nn.Parameter(wide(5, 6))), (wide(5, 6),)


def changed_input() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        m.count.add_(1)
        m.mean.lerp_(x.mean(0), 0.1)
        return m.fc(x - m.mean).sigmoid() * m.count

    count, mean = torch.zeros((), dtype=torch.int64), torch.zeros(6, dtype=torch.float64)
    return Net(forward, fc=nn.Linear(6, 6), count=count, mean=mean), (wide(5, 6),)


def changed_after_use() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        y = m.fc(x) * m.scale.sin() * m.scale[2:].exp().sum()
        m.scale.mul_(1.5)
        return (y * m.scale).tanh() * m.scale.cos()

    return Net(forward, fc=nn.Linear(6, 6), scale=wide(6)), (wide(5, 6),)


def losses() -> Case:
    def forward(m: Net, x: Tensor, labels: Tensor) -> Any:
        y = m.fc(x)
        return F.cross_entropy(y, labels, ignore_index=2), F.smooth_l1_loss(y.exp(), x)

    return Net(forward, fc=nn.Linear(6, 6)), (wide(5, 6), torch.tensor([1, 0, 2, 5, 4]))


def recurrent() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        h = x.new_zeros(3, 6)
        for each in x.unbind(1):
            r, z = m.gates(torch.cat([each, h], -1)).sigmoid().chunk(2, -1)
            h = (1 - z) * h + z * m.new(r * h).tanh()
        return h

    return Net(forward, gates=nn.Linear(10, 12), new=nn.Linear(6, 6)), (wide(3, 4, 4),)


def wide_and_complex() -> Case:
    def forward(m: Net, x: Tensor) -> Any:
        return torch.fft.irfft(torch.fft.rfft(m.fc(x)) * m.filter.sigmoid(), n=6)

    return Net(forward, fc=nn.Linear(6, 6), filter=nn.Parameter(wide(4))), (wide(5, 6),)


CASES: list[Callable[[], Case]] = [
    *(mlp, attention_by_softmax, attention, conv, conv_in_eval, norm_without_parameters, norms),
    *(norm_without_statistics, norm_in_a_residual_chain, pooled, tied, many_results, residual),
    *(views, channels_last, in_place, integers_and_masks, outputs_that_are_saved),
    *(views_of_inputs, gradients_of_inputs, frozen, used_twice, a_value_as_gradient),
    *(changed_input, changed_after_use, losses, recurrent, wide_and_complex),
]


def made(case: Callable[[], Case]) -> Case:
    torch.manual_seed(0)
    model, inputs = case()
    return model.double(), inputs


@cache
def prepared(case: Callable[[], Case]) -> tuple[Case, Graphs, Result]:
    """A case, its graphs and what eager mode gives."""
    model, inputs = made(case)
    return (model, inputs), graphs(model, inputs), train(model, inputs)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=4)
@given(again=st.lists(st.booleans(), min_size=30, max_size=30))
@example(again=[False] * 30)
@example(again=[True] * 30)
def test_any_choice_gives_the_gradients_of_eager_mode(
    case: Callable[[], Case], again: list[bool]
) -> None:
    """Keep or compute again, drawn for every tensor of the graph."""
    (model, inputs), found, eager = prepared(case)
    assert len(found) == 1
    names = [item.name for item in found[0][1]]
    drawn = {name: again[place % len(again)] for place, name in enumerate(names)}
    planned = chosen(found, lambda item: first_of(RECOMPUTE if drawn[item.name] else KEEP)(item))
    assert_same(train(model, inputs, planned), eager)
    (graph,) = planned.plan.graphs
    assert graph.held == sum(entry.held for entry in graph.entries)
    told = {entry.name: entry.choice for entry in graph.entries}
    for item in found[0][1]:
        if item.needed:
            wanted = (drawn[item.name] and item.again is not None) or not item.options
            assert told[item.name] == (RECOMPUTE if wanted else KEEP)
