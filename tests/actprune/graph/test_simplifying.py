"""Simplified joint graphs: gradients stay eager mode's, and what nobody needs is not kept."""

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from actprune.graph.compiling import backend
from actprune.graph.options import SMALL
from actprune.graph.plan import BITS, KEEP, NARROW
from actprune.graph.simplifying import simplify
from tests.planned import assert_same, chosen, first_of, graphs, parts, passes, train
from tests.twins import Net

Case = tuple[nn.Module, tuple[Any, ...]]
aten: Any = torch.ops.aten


def wide(*size: int, grad: bool = False) -> Tensor:
    return torch.randn(size, dtype=torch.float64, requires_grad=grad)


def assert_eager(model: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Under a plan that rewrites the graph and loses nothing, two steps are eager mode's."""
    model.double()
    for wish in ((KEEP,), (BITS, NARROW, KEEP)):
        planned = chosen(graphs(model, inputs), first_of(*wish))
        assert_same(train(model, inputs, planned), train(model, inputs))


class Act(nn.Module):
    """An activation after a linear layer, 4 times as wide as what it takes."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.function = nn.Linear(32, 128), function

    def forward(self, x: Tensor) -> Tensor:
        """Sums, which need nothing of what they add."""
        return self.function(self.fc(x)).sum(0)


GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu_": lambda h: F.relu_(h + 0),
    "relu6": F.relu6,
    "hardtanh": lambda h: F.hardtanh(h, -0.3, 0.4),
    "threshold": lambda h: F.threshold(h, 0.25, -7.0),
    "below": lambda h: F.threshold(h, -0.5, 2.0),
}


@pytest.mark.parametrize("name", GATES)
def test_gates_are_held_as_masks_in_bits(name: str) -> None:
    model, x = Act(GATES[name]), wide(24, 32)
    assert_eager(model, (x,))
    planned = chosen(graphs(model, (x,)), first_of(BITS, KEEP))
    train(model, (x,), planned, steps=1)
    (graph,) = planned.plan.graphs
    held = {entry.name: entry for entry in graph.entries if entry.held}
    (mask,) = held.values()
    assert (mask.choice, mask.nbytes, mask.held) == (BITS, 24 * 128, 24 * 128 // 8)
    assert graph.held == mask.held
    assert graph.dense >= 8 * 24 * 128


@pytest.mark.parametrize("name", ["relu", "threshold", "below"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gates_let_through_what_eager_mode_does(name: str, dtype: torch.dtype) -> None:
    """Every pair of an input and a gradient, NaN and infinities too, bit by bit."""
    rare = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 0.25, -0.5, 1.0, -1.0, 1e-30]
    xs, gs = torch.tensor(list(product(rare, rare)), dtype=dtype).T.repeat(1, 13).contiguous()
    assert xs.numel() > SMALL

    def forward(m: Net, x: Tensor, g: Tensor) -> Tensor:
        return GATES[name](x * 1) * g

    x = xs.clone().requires_grad_()
    model = Net(forward)
    planned = chosen(graphs(model, (x, gs)), first_of(BITS, KEEP))
    found = []
    for run in (model, torch.compile(model, backend=planned)):
        x.grad = None
        run(x, gs).backward(torch.ones_like(x))
        assert x.grad is not None
        found.append(x.grad.clone())
    assert BITS in {entry.choice for entry in planned.plan.graphs[0].entries}
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0, equal_nan=True)
    assert torch.equal(found[1].signbit(), found[0].signbit())


def test_hardtanh_lets_rare_gradients_through() -> None:
    """Of a NaN input eager mode on a CPU gives one gradient or another, by its place: left out."""
    rare = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, -1.0, 1.0, 0.5, 3.0]
    xs, gs = torch.tensor(list(product(rare[1:], rare)), dtype=torch.float64).T.repeat(1, 15)
    x = xs.contiguous().requires_grad_()

    def forward(m: Net, x: Tensor, g: Tensor) -> Tensor:
        return F.hardtanh(x * 1) * g

    model, found = Net(forward), []
    planned = chosen(graphs(model, (x, gs)), first_of(BITS, KEEP))
    for run in (model, torch.compile(model, backend=planned)):
        x.grad = None
        run(x, gs).backward(torch.ones_like(x))
        assert x.grad is not None
        found.append(x.grad.clone())
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0, equal_nan=True)


POOLS: dict[str, dict[str, Any]] = {
    "plain": {"kernel_size": 2},
    "dilated": {"kernel_size": 2, "stride": 1, "dilation": 2},
    "overlapping": {"kernel_size": 3, "stride": 2, "padding": 1},
    "ceil": {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    "uneven": {"kernel_size": (3, 2), "stride": (1, 2)},
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", POOLS)
def test_pooling_reads_a_shape_alone(name: str, layout: torch.memory_format) -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        out: Tensor = m.pool((m.conv(x) + 1).contiguous(memory_format=layout))
        return out

    conv = nn.Conv2d(2, 3, 3, padding=1)
    model, x = Net(forward, conv=conv, pool=nn.MaxPool2d(**POOLS[name])), wide(2, 2, 9, 10)
    assert_eager(model, (x,))
    (part,) = parts(model, (x,), backend(compiler="aot_eager"))
    whole = 2 * 3 * 9 * 10 * 8
    kept = [value.nbytes for value in part.values if value.readers]
    assert (whole in kept) == (layout == torch.channels_last)


def test_pooling_of_an_image_without_a_batch_and_of_one_channel() -> None:
    for size in ((3, 6, 6), (2, 1, 6, 6)):
        conv = nn.Conv2d(size[-3], 1, 3, padding=1)
        assert_eager(nn.Sequential(conv, nn.MaxPool2d(2, return_indices=True)), (wide(*size),))


# Copies


def returned(m: Net, x: Tensor) -> Any:
    y = m.fc(x).sin()
    return y.clone(), y.exp()


def copy_of_what_is_returned(m: Net, x: Tensor) -> Any:
    y = m.fc(x).sin()
    return y, y.clone().exp()


def of_an_input(m: Net, x: Tensor) -> Any:
    return m.fc(x.clone().sin()) * x.clone()


def of_a_changed_copy(m: Net, x: Tensor) -> Any:
    y = m.fc(x).sin()
    z = y.clone()
    z.mul_(2).exp_()
    return (z * y).cos()


def of_a_changed_input(m: Net, x: Tensor) -> Any:
    with torch.no_grad():
        before = m.seen.clone()
        m.seen.add_(x.mean(0))
    return m.fc(x * before).exp() * before


def in_another_layout(m: Net, x: Tensor) -> Any:
    y = m.fc(x).view(2, 3, 2, 4).sin()
    return y.clone(memory_format=torch.channels_last).exp() * y.clone().cos()


def of_a_part(m: Net, x: Tensor) -> Any:
    y = m.fc(x).sin()
    z = y[2:].clone()
    return (z.exp() * z).as_strided((2, 3), (8, 2), 0).cos() + z.as_strided((2, 3), (8, 2), 0)


def dropped_nothing(m: Net, x: Tensor) -> Any:
    return F.dropout(m.fc(x).sin(), 0.0).exp() * F.dropout(x, 0.0)


COPIES = (
    *(returned, copy_of_what_is_returned, of_an_input, of_a_changed_copy),
    *(of_a_changed_input, in_another_layout, of_a_part, dropped_nothing),
)


@pytest.mark.parametrize("function", COPIES)
def test_copies(function: Callable[[Net, Tensor], Any]) -> None:
    model = Net(function, fc=nn.Linear(8, 8))
    model.register_buffer("seen", torch.ones(8))
    assert_eager(model, (wide(6, 8),))


def test_results_are_tensors_of_their_own() -> None:
    for function in (returned, copy_of_what_is_returned):
        model, x = Net(function, fc=nn.Linear(8, 8)).double(), wide(6, 8)
        step = torch.compile(model, backend=backend("@*=>codes:bits=8", compiler="aot_eager"))
        one, other = step(x)
        before = other.clone()
        one.detach().zero_()
        assert torch.equal(other, before)


def clones(function: Callable[[Tensor], Any]) -> int:
    """How many copies of a traced function are left."""
    with FakeTensorMode():
        x = torch.empty(6, 8)
        graph = fx.experimental.proxy_tensor.make_fx(function)(x).graph
    (output,) = graph.find_nodes(op="output")
    output.args = ((output.args[0],),)
    simplify(graph, 1)
    return len(graph.find_nodes(op="call_function", target=aten.clone.default))


def test_copies_that_nobody_needs_go() -> None:
    assert clones(lambda x: x.sin().clone().exp()) == 0
    assert clones(lambda x: x.sin().clone().clone().exp().clone().cos()) == 0
    assert clones(lambda x: x.sin().clone()) == 1
    assert clones(lambda x: x.clone().sin()) == 1
    assert clones(lambda x: x.sin()[:, ::2].clone().exp()) == 1
    assert clones(lambda x: x.sin()[2:].clone().exp()) == 1


# Convolutions and batch norms


CONVOLUTIONS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "plain": (nn.Conv2d(3, 5, 3), (2, 3, 9, 8)),
    "padded": (nn.Conv2d(3, 5, 3, padding=(2, 1)), (2, 3, 9, 8)),
    "strided": (nn.Conv2d(3, 5, 3, stride=2, padding=1), (2, 3, 9, 8)),
    "strided past the end": (nn.Conv2d(3, 5, 2, stride=(3, 2)), (2, 3, 10, 9)),
    "dilated": (nn.Conv2d(3, 5, 3, dilation=2, bias=False), (2, 3, 9, 8)),
    "in groups": (nn.Conv2d(4, 6, 3, groups=2, stride=2), (2, 4, 9, 8)),
    "by channel": (nn.Conv2d(4, 4, 3, groups=4, padding=1), (2, 4, 9, 8)),
    "pointwise": (nn.Conv2d(3, 5, 1), (2, 3, 9, 8)),
    "pointwise without a bias": (nn.Conv2d(5, 3, 1, bias=False), (2, 5, 9, 8)),
    "pointwise of few places": (nn.Conv2d(16, 8, 1), (2, 16, 2, 2)),
    "pointwise and padded": (nn.Conv2d(3, 5, 1, padding=1), (2, 3, 9, 8)),
    "pointwise and strided": (nn.Conv2d(3, 5, 1, stride=2), (2, 3, 9, 8)),
    "1d": (nn.Conv1d(3, 5, 3, stride=2), (2, 3, 9)),
    "pointwise 1d": (nn.Conv1d(3, 5, 1), (2, 3, 9)),
    "3d": (nn.Conv3d(2, 3, 2, stride=2), (2, 2, 5, 4, 7)),
    "transposed": (nn.ConvTranspose2d(3, 5, 3, stride=2), (2, 3, 5, 4)),
    "one image": (nn.Conv2d(3, 5, 3), (1, 3, 9, 8)),
    "padded like a mirror": (nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"), (2, 3, 9, 8)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_gradients_of_a_convolution_apart(name: str) -> None:
    conv, size = CONVOLUTIONS[name]
    order = torch.channels_last if len(size) == 4 else torch.contiguous_format

    def forward(m: Net, x: Tensor) -> Any:
        x = x.sin()
        return m.conv(x) * m.conv(x.contiguous(memory_format=order))

    assert_eager(Net(forward, conv=conv), (wide(*size, grad=True),))


def of_gradients(model: nn.Module, *size: int) -> list[fx.Node]:
    """The operators of a simplified backward pass."""
    x = torch.randn(size, requires_grad=True)
    (part,) = parts(model, (x,), backend(compiler="aot_eager"))
    graph = part.module.graph
    return [node for node in graph.nodes if node in part.joint.backward]


def test_an_input_s_gradient_needs_no_input() -> None:
    nodes = of_gradients(nn.Conv2d(3, 5, 3), 2, 3, 9, 8)
    (weight,) = (node for node in nodes if node.target is aten.convolution_backward.default)
    (image,) = (node for node in nodes if node.target is aten.convolution.default)
    assert weight.args[-1] == [False, True, True]
    assert "primals_3" not in {part.name for part in image.all_input_nodes}


def test_pointwise_convolutions_are_products_where_that_is_faster() -> None:
    products = [n for n in of_gradients(nn.Conv2d(3, 5, 1), 2, 3, 9, 8) if "bmm" in n.name]
    assert [tuple(n.meta["val"].shape) for n in products] == [(2, 3, 72), (2, 5, 3)]
    few = of_gradients(nn.Conv2d(16, 8, 1), 2, 16, 2, 2)
    assert not [n for n in few if "bmm" in n.name]
    assert [n for n in few if n.target is aten.convolution_backward.default]


@pytest.mark.parametrize("mean", [0.0, 30.0])
@pytest.mark.parametrize("norm", [nn.BatchNorm1d(3), nn.BatchNorm2d(3), nn.BatchNorm3d(3, eps=0.1)])
def test_a_batch_norm_s_gradient_over_the_one_it_is_given(norm: nn.Module, mean: float) -> None:
    def forward(m: Net, x: Tensor) -> Any:
        return m.norm(x.sin() + mean).cos()

    torch.manual_seed(0)
    nn.init.uniform_(norm.weight, 0.5, 2)  # type: ignore[arg-type]
    size = {"BatchNorm1d": (7,), "BatchNorm2d": (4, 5), "BatchNorm3d": (2, 3, 4)}
    x = wide(5, 3, *size[type(norm).__name__], grad=True)
    model = Net(forward, norm=norm.double())
    planned = chosen(graphs(model, (x,)), first_of(KEEP))
    assert_same(train(model, (x,), planned), train(model, (x,)), tolerance=1e-11)
    nodes = of_gradients(copy.deepcopy(norm).float(), *x.shape)
    (sums,) = (n for n in nodes if n.target is aten.native_batch_norm_backward.default)
    assert sums.args[-1] == [False, True, True]


def test_a_batch_norm_of_fp32_far_from_zero() -> None:
    """Its gradient errs no more than eager mode's by ten times, beside float64's."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    x = (torch.randn(8, 4, 9, 9) + 50).requires_grad_()

    def off(compiled: Any) -> float:
        exact = train(
            copy.deepcopy(norm).double(), (x.detach().double().requires_grad_(),), None, 1
        )
        found = train(norm, (x,), compiled, 1)
        name = "gradient of input 0"
        return float((found[name].double() - exact[name]).norm() / exact[name].norm())

    assert off(backend(1.0, compiler="aot_eager")) <= 10 * off(None)


@pytest.mark.parametrize("kind", ["not affine", "evaluated", "frozen"])
def test_other_batch_norms_are_left_as_they_are(kind: str) -> None:
    norm = nn.BatchNorm2d(3, affine=kind != "not affine")
    norm.train(kind != "evaluated")
    norm.requires_grad_(kind != "frozen")

    def forward(m: Net, x: Tensor) -> Any:
        return m.norm(m.conv(x)).sin()

    model = Net(forward, conv=nn.Conv2d(3, 3, 1), norm=norm)
    assert_eager(model, (wide(4, 3, 5, 6),))


# What replaces an operator lies as its result did: what follows was traced so


def turned(m: Net, x: Tensor) -> Tensor:
    out: Tensor = m.second(F.relu(m.first(x).transpose(1, 2)).transpose(1, 2))
    return out


def permuted(m: Net, x: Tensor) -> Tensor:
    out: Tensor = m.second(F.relu6(m.first(x).permute(1, 2, 0)).permute(2, 0, 1))
    return out


@pytest.mark.parametrize("forward", [turned, permuted])
def test_masks_of_what_lies_otherwise(forward: Callable[[Net, Tensor], Tensor]) -> None:
    model = Net(forward, first=nn.Linear(6, 8), second=nn.Linear(8, 6))
    assert_eager(model, (wide(3, 5, 6, grad=True),))


@pytest.mark.parametrize("gate", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(), nn.Tanh()])
def test_images_whose_channels_are_last(gate: nn.Module) -> None:
    parts = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), gate, nn.Conv2d(8, 4, 1), nn.AvgPool2d(2)
    x = wide(4, 3, 8, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    assert_eager(nn.Sequential(*parts), (x,))


def test_a_mask_is_written_over_a_gradient_that_lies_otherwise() -> None:
    model = Net(turned, first=nn.Linear(6, 8), second=nn.Linear(8, 6))
    x = torch.randn(3, 5, 6)
    _, backward, _ = passes(model, (x,), backend(0.9, compiler="aot_eager"))
    assert backward.graph.find_nodes(op="call_function", target=aten.masked_fill_.Scalar)


def test_a_batch_norm_of_half_the_precision_is_left_alone() -> None:
    """Under autocast it is given bf16, and has weights of fp32."""

    def forward(m: Net, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out: Tensor = m.norm(m.first(x)).relu()
            scored: Tensor = m.second(out).float()
        return scored

    parts = {"first": nn.Conv2d(3, 8, 3), "norm": nn.BatchNorm2d(8), "second": nn.Conv2d(8, 4, 1)}
    model, x = Net(forward, **parts), torch.randn(4, 3, 9, 9)
    planned = chosen(graphs(model, (x,)), first_of(KEEP))
    assert_same(train(model, (x,), planned), train(model, (x,), "aot_eager"), tolerance=1e-2)


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_batch_without_images(kernel: int) -> None:
    assert_eager(nn.Conv2d(3, 4, kernel), (wide(0, 3, 6, 6, grad=True),))


def test_one_number_for_all_dimensions() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        return F.conv2d(x.sin(), m.conv.weight, None, [2], [1], [1])

    assert_eager(Net(forward, conv=nn.Conv2d(3, 4, 3)), (wide(2, 3, 7, 8, grad=True),))
