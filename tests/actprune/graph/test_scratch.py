"""What operators allocate beside their results, as torch's allocator sees it."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

from actprune.graph.scratch import scratch

aten: Any = torch.ops.aten
NEAR = 0.05
"""Of what is predicted, or of all that is there."""
SHAPES = {  # images, channels, results, size, kernel, stride, padding, groups
    "plain": (8, 64, 64, 28, 3, 1, 1, 1),
    "strided": (8, 64, 128, 28, 3, 2, 1, 1),
    "of colours": (8, 3, 64, 56, 7, 2, 3, 1),
    "pointwise": (16, 40, 160, 28, 1, 1, 0, 1),
    "pointwise of few images": (4, 64, 256, 28, 1, 1, 0, 1),
    "by channel": (8, 48, 48, 28, 3, 1, 1, 48),
    "padded to blocks": (8, 24, 24, 56, 3, 2, 1, 1),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Libraries are chosen by the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def allocated(function: Callable[[], Any]) -> tuple[int, int]:
    """The most that is allocated while a function runs, and what it returns, in bytes."""
    function()  # weights may be kept in another order
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as made:
        found = function()
    returned = sum(part.nbytes for part in tree_leaves(found) if isinstance(part, Tensor))
    kineto: Any = made.profiler
    events = kineto.kineto_results.events()
    memory = [(each.start_ns(), each.nbytes()) for each in events if each.name() == "[memory]"]
    now = peak = 0
    for _, nbytes in sorted(memory, key=lambda each: each[0]):
        now += nbytes
        peak = max(peak, now)
    return peak, returned


def predicted(function: Callable[..., Any], *inputs: Tensor) -> int:
    with FakeTensorMode() as mode:
        graph = make_fx(function)(*map(mode.from_tensor, inputs)).graph
    return sum(scratch(node) for node in graph.nodes if node.op == "call_function")


def assert_near(function: Callable[..., Any], *inputs: Tensor) -> None:
    peak, returned = allocated(lambda: function(*inputs))
    whole = sum(part.nbytes for part in inputs) + peak
    assert predicted(function, *inputs) == pytest.approx(peak - returned, NEAR, NEAR * whole)


@pytest.mark.parametrize(
    ("name", "of"),
    [
        *product(SHAPES, ("result", "weight")),
        *product(("plain", "strided", "by channel", "padded to blocks"), ("input", "both")),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_convolutions(name: str, last: bool, of: str) -> None:
    n, channels, results, size, kernel, stride, padding, groups = SHAPES[name]
    x = torch.randn(n, channels, size, size)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(results, channels // groups, kernel, kernel)
    settings = [stride] * 2, [padding] * 2, [1, 1]
    given = (None, *settings, False, [0, 0], groups)
    grad = torch.randn_like(aten.convolution(x, weight, *given))
    rest = [size - ((grad.shape[-1] - 1) * stride - 2 * padding + kernel)] * 2
    wanted = [of == "both", True, False]

    def result(x: Tensor, weight: Tensor) -> Any:
        return aten.convolution(x, weight, *given)

    def of_input(grad: Tensor, weight: Tensor) -> Any:
        return aten.convolution(grad, weight, None, *settings, True, rest, groups)

    def backward(grad: Tensor, x: Tensor, weight: Tensor) -> Any:
        found = aten.convolution_backward(grad, x, weight, *given, wanted)
        return [part for part in found if part is not None and part.numel()]

    if of == "result":
        assert_near(result, x, weight)
    elif of == "input":
        assert_near(of_input, grad, weight)
    else:
        assert_near(backward, grad, x, weight)


def norm(x: Tensor) -> Any:
    return aten.native_layer_norm(x, [x.shape[-1]], None, None, 1e-5)


def norm_backward(grad: Tensor, x: Tensor) -> Any:
    mean, inverse = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    arguments = [x.shape[-1]], mean, inverse, None, None, [True, False, False]
    return aten.native_layer_norm_backward(grad, x, *arguments)[0]


@pytest.mark.parametrize("turned", [False, True])
def test_norms_copy_what_lies_otherwise(turned: bool) -> None:
    x = torch.randn(64, 32, 32)
    x = x.transpose(1, 2) if turned else x
    wanted = x.nbytes if turned else 0
    assert predicted(norm, x) == wanted
    assert predicted(norm_backward, x, x) == 2 * wanted
    assert_near(norm, x)


def test_a_batch_norm_s_gradient_has_a_copy() -> None:
    x, per_channel = torch.randn(8, 16, 32, 32), torch.ones(16)

    def backward(grad: Tensor, x: Tensor, each: Tensor) -> Any:
        given = each, each, each, each, each, True, 1e-5, [True, True, True]
        return list(aten.native_batch_norm_backward(grad, x, *given))

    assert predicted(backward, x, x, per_channel) == x.nbytes
    assert_near(backward, x, x, per_channel)
