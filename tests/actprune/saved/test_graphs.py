"""Random graphs of functions, views and changes in place step as their dense twins do."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.twins import Net, assert_equal, lossless, step, twin

Step = Callable[[Net, Tensor, Tensor], Any]
"""What a node makes of two earlier ones, each (4, 8)."""


def _in_place(change: Callable[[Tensor, Tensor], Any]) -> Step:
    """On a tensor of its own, so that autograd may allow it."""

    def run(m: Net, a: Tensor, b: Tensor) -> Any:
        a = a * 1
        change(a, b)
        return a

    return run


def _set(a: Tensor, b: Tensor) -> None:
    a[1:3] = b[:2]


def _attention(m: Net, a: Tensor, b: Tensor) -> Any:
    q, k, v = m.three(a).view(4, 3, 2, 4).permute(1, 2, 0, 3)
    return F.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(4, 8)


STEPS: dict[str, Step] = {
    "linear": lambda m, a, b: m.one(a),
    "twice": lambda m, a, b: m.one(a) + m.one(a) * b,
    "tied": lambda m, a, b: a @ m.one.weight,
    "attention": _attention,
    "matmul": lambda m, a, b: a @ b.t() @ a / 8,
    "einsum": lambda m, a, b: torch.einsum("ij,kj,kl->il", a, b, b) / 8,
    "gelu": lambda m, a, b: F.gelu(a),
    "gelu of another layout": lambda m, a, b: F.gelu(m.one(a).t()).t() * F.gelu(m.two(b)[:, ::2]),
    "silu": lambda m, a, b: F.silu(a) * b,
    "swiglu": lambda m, a, b: torch.mul(F.silu(m.two(a)[:, 8:]), m.two(b)[:, :8]),
    "relu": lambda m, a, b: F.relu(a),
    "relu at once": lambda m, a, b: F.relu(a + b, inplace=True),
    "softmax": lambda m, a, b: a.softmax(-1) * b,
    "layer norm": lambda m, a, b: F.layer_norm(a, (8,), m.scale, m.shift),
    "group norm": lambda m, a, b: F.group_norm(a, 2, m.scale, m.shift),
    "batch norm": lambda m, a, b: F.batch_norm(a, m.mean, m.var, m.scale, m.shift, m.training),
    "rms": lambda m, a, b: a * (a.pow(2).mean(-1, keepdim=True) + 1e-3).rsqrt(),
    "conv": lambda m, a, b: m.conv(a.view(1, 2, 4, 4)).tanh().view(4, 8),
    "channels last": lambda m, a, b: m.conv(
        a.view(1, 2, 4, 4).contiguous(memory_format=torch.channels_last)
    ).reshape(4, 8),
    "max pool": lambda m, a, b: F.max_pool2d(a.view(1, 2, 4, 4), 3, 1, 1).view(4, 8),
    "dropout": lambda m, a, b: F.dropout(a, 0.5),
    "transpose": lambda m, a, b: a.t().reshape(4, 8) * b,
    "chunk": lambda m, a, b: torch.cat([x.tanh() for x in a.chunk(2, 1)], 1),
    "glu": lambda m, a, b: F.glu(m.two(a)),
    "roll": lambda m, a, b: torch.cat([a[:, 3:], b[:, :3]], 1) * a,
    "expand": lambda m, a, b: a[:1].expand(4, 8) * b,
    "flip": lambda m, a, b: a.flip(0).sigmoid(),
    "where": lambda m, a, b: torch.where(a > b, a, b * 0.5),
    "gather": lambda m, a, b: a.gather(1, b.argsort(1)) * b,
    "index": lambda m, a, b: a[b.sum(1).argsort()] * b,
    "embedding": lambda m, a, b: F.embedding(b.argsort(1)[:, 0], m.one.weight) * a,
    "square": lambda m, a, b: a * a - b,
    "divide": lambda m, a, b: a / (b.abs() + 1),
    "exp": lambda m, a, b: (-a.abs()).exp() * b,
    "complex": lambda m, a, b: torch.view_as_complex(a.view(4, 4, 2)).conj().imag.repeat(1, 2) * b,
    "detach": lambda m, a, b: a.detach() * b + a.data,
    "add_": _in_place(lambda a, b: a.add_(b)),
    "iadd": _in_place(lambda a, b: a.__iadd__(b.detach())),
    "mul_": _in_place(lambda a, b: a.mul_(2)),
    "mul_ of a view": _in_place(lambda a, b: a[:, 2:5].mul_(b[:, :3])),
    "masked_fill_": _in_place(lambda a, b: a.masked_fill_(b > 0, 0.5)),
    "set": _in_place(_set),
    "tanh_": _in_place(lambda a, b: a.tanh_()),
    "data": _in_place(lambda a, b: a.data.mul_(2)),
    "silu_": _in_place(lambda a, b: F.silu(a, inplace=True)),
    "silu_ of a view": _in_place(lambda a, b: F.silu(a[:, 2:5], inplace=True)),
    "clamp_": _in_place(lambda a, b: a.clamp_(-1, 1)),
}


SPECS = [
    "@*=>codes:bits=4",
    "recompute+@*=>codes:bits=4",
    "@activation=>derivative:bits=2;@*=>codes:bits=4",
    "@activation=>derivative:bits=2;@linear=>dense",
]


def graph(nodes: list[tuple[str, int, int]], shared: bool) -> Net:
    def run(m: Net, x: Tensor) -> Any:
        made = [x, m.one(x)]
        for name, first, second in nodes:
            a, b = (made[-1 - at % len(made)] for at in (first, second))
            out = STEPS[name](m, a, b)
            if shared:
                made.append(out)
            else:  # what is not used any more is freed, and its address given to others
                made = [*made[-2:], out]
        return sum(made[1:]) + m.one(x)

    parts = {"one": nn.Linear(8, 8), "two": nn.Linear(8, 16), "three": nn.Linear(8, 24)}
    vectors = {name: nn.Parameter(torch.rand(8) + 0.5) for name in ("scale", "shift")}
    buffers = {"mean": torch.zeros(8), "var": torch.ones(8)}
    return Net(run, conv=nn.Conv2d(2, 2, 3, padding=1), **parts, **vectors, **buffers).double()


NODES = st.lists(
    st.tuples(st.sampled_from(list(STEPS)), st.integers(0, 3), st.integers(0, 3)),
    min_size=1,
    max_size=9,
)


def same(net: Net, spec: str, small: int) -> None:
    x = torch.randn(4, 8, dtype=torch.float64)
    other = twin(net, spec)
    vars(other)["forward"].log = None  # it would make values earlier than the backward pass does
    try:
        expected = step(net, x)
    except RuntimeError:  # of what is saved, something was changed in place
        return
    with lossless(small):
        found = step(other, x)
    assert_equal(found, expected, 1e-9)


@given(nodes=NODES, shared=st.booleans(), small=st.sampled_from([0, 64, 128]), train=st.booleans())
@pytest.mark.parametrize("spec", SPECS)
def test_a_step_is_denses(
    spec: str, nodes: list[tuple[str, int, int]], shared: bool, small: int, train: bool
) -> None:
    torch.manual_seed(1)
    same(graph(nodes, shared).train(train), spec, small)


@pytest.mark.parametrize("name", STEPS)
def test_each_function_alone_and_twice(name: str) -> None:
    for nodes in ([(name, 0, 1)], [(name, 0, 0)], [(name, 0, 1), ("gelu", 0, 0), (name, 1, 0)]):
        for spec in SPECS:
            same(graph(nodes, True), spec, 0)
