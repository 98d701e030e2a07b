"""Gradients are dense's own where a store loses nothing, whatever a model computes."""

import gc
import weakref
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from actprune import apply
from actprune.saved.stores import Coded
from tests.twins import Net, assert_equal, log, lossless, same_step, step, twin


def linear(inputs: int = 8, outputs: int = 8) -> nn.Linear:
    return nn.Linear(inputs, outputs)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) / 2)


def bf16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def rows(requires_grad: bool = False) -> Tensor:
    return torch.randn(6, 8, requires_grad=requires_grad)


def stores(model: nn.Module, function: str) -> list[str]:
    return [saved.store for saved in log(model) if saved.function == function]


def test_arguments_by_keyword() -> None:
    net = Net(lambda m, x: F.linear(input=m.a(x), weight=m.w).tanh(), a=linear(), w=weight(5, 8))
    other = same_step(net, rows())
    assert [saved.kind for saved in log(other)] == ["linear"] * 2 + ["activation"]
    net = Net(lambda m, x: torch.matmul(m.w, other=m.a(x)).relu() @ m.w, a=linear(), w=weight(8, 8))
    other = same_step(net, torch.randn(8, 8))
    assert stores(other, "matmul") == ["kept", "shares kept"] or "kept" in stores(other, "matmul")


def test_weights_are_kept_however_they_are_computed() -> None:
    weights = [
        lambda m: torch.cat([m.w, m.v]),
        lambda m: m.w * m.w.mean(),
        lambda m: torch.mul(input=m.w, other=m.v),
        lambda m: m.w.view(4, 16).view(8, 8).t(),
        lambda m: m.w @ m.v + m.a.weight,
        lambda m: F.dropout(m.w, 0.5),
        lambda m: standardized(m.w),
        lambda m: m.w[:4],
        lambda m: m.b.weight,
        lambda m: m.c.weight,
    ]
    norms = {
        "b": parametrizations.weight_norm(linear()),
        "c": parametrizations.spectral_norm(linear()),
    }
    for number, found in enumerate(weights):
        net = Net(
            lambda m, x, found=found: F.linear(m.a(x), found(m)),
            a=linear(), w=weight(8, 8), v=weight(8, 8), **norms,
        )  # fmt: skip
        other = same_step(net, rows())
        coded = [saved for saved in log(other) if saved.store == "kept" and saved.nbytes > 4]
        assert [saved.kind for saved in coded] == ["linear"], number


def standardized(weight: Tensor) -> Tensor:
    """What convolutions with weight standardization do."""
    across = weight.view(1, len(weight), -1)
    scale = weight[:, 0]
    return F.batch_norm(across, None, None, weight=scale, training=True).view_as(weight)


def test_an_input_that_takes_a_gradient_is_no_weight() -> None:
    net = Net(lambda m, x: m.b(F.gelu(m.a(x))), a=linear(), b=linear())
    other = same_step(net, rows(requires_grad=True))
    assert stores(other, "linear") == ["alive anyway", "again by gelu"]
    assert stores(other, "gelu") == ["kept"]

    def embedded(m: Net, x: Tensor) -> Any:
        """As PEFT has it: the embedding is frozen, what it gives takes a gradient."""
        return m.b(F.gelu(m.a((x * 2).requires_grad_())))

    other = same_step(Net(embedded, a=linear(), b=linear()), rows())
    assert stores(other, "linear") == ["kept", "again by gelu"]


class Pair(NamedTuple):
    """Two tensors."""

    first: Tensor
    second: Tensor


def test_arguments_in_a_tuple_of_a_class_of_its_own() -> None:
    net = Net(lambda m, x: torch.cat(Pair(m.a(x), m.b(x))).tanh() ** 2, a=linear(), b=linear())
    same_step(net, rows())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("train", [True, False])
def test_batch_normalization_counts_a_batch_once(
    memory_format: torch.memory_format, autocast: bool, train: bool
) -> None:
    def function(m: Net, x: Tensor) -> Any:
        return m.d(F.relu(m.n(m.c(x)), inplace=True) * 2)

    parts = {"c": nn.Conv2d(4, 4, 3), "d": nn.Conv2d(4, 4, 3), "n": nn.BatchNorm2d(4)}
    net = Net(function, **parts).train(train)
    images = torch.randn(3, 4, 7, 7).contiguous(memory_format=memory_format)
    other = same_step(
        net, images, **({"around": bf16, "tolerance": 0.03} if autocast else {"tolerance": 1e-6})
    )
    net = net.to(memory_format=memory_format)  # type: ignore[call-overload]
    same_step(net, images, tolerance=1e-6)
    assert not autocast or "again by batch_norm" not in stores(other, "conv2d")


def test_batch_normalization_called_in_other_ways() -> None:
    def function(m: Net, x: Tensor) -> Any:
        h = torch.batch_norm(m.c(x), m.w, m.v, None, None, True, 0.1, 1e-5, True)
        h = F.batch_norm(h.tanh(), None, None, training=True) + F.batch_norm(h, m.r, m.s, m.w)
        return F.instance_norm(h.relu(), m.t, m.u)

    zeros = {"r": torch.zeros(4), "t": torch.zeros(4)}
    ones = {"s": torch.ones(4), "u": torch.ones(4)}
    net = Net(function, c=nn.Conv2d(4, 4, 3), w=weight(4), v=weight(4), **zeros, **ones)
    same_step(net, torch.randn(3, 4, 7, 7))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        step(twin(nn.BatchNorm1d(4)), torch.randn(1, 4))


@pytest.mark.parametrize("shapes", [((8, 4), (4, 8)), ((8, 8), (8, 8))])
def test_autocast_of_weights_that_are_multiplied(shapes: tuple[tuple[int, ...], ...]) -> None:
    def function(m: Net, x: Tensor) -> Any:
        return F.linear(m.a(x), m.b @ m.c)

    net = Net(function, a=linear(), b=weight(*shapes[0]), c=weight(*shapes[1]))
    other = same_step(net, rows(), around=bf16)
    assert stores(other, "linear").count("kept") == 2  # the cast batch, and what a gives


@pytest.mark.parametrize("outputs", [8, 24])
def test_autocast_of_weights_that_are_transposed(outputs: int) -> None:
    functions: list[Any] = [
        lambda m, x: F.linear(m.a(x), m.w),
        lambda m, x: F.linear(m.a(x)[None], m.w, m.bias),
        lambda m, x: torch.addmm(m.bias, m.a(x), m.w.t()),
        lambda m, x: m.a(x) @ m.w.t(),
        lambda m, x: m.a(x) @ m.v,
    ]
    for function in functions:
        parts = {"w": weight(outputs, 8), "v": weight(8, outputs), "bias": weight(outputs)}
        net = Net(function, a=linear(), **parts)
        other = same_step(net, rows(), around=bf16)
        product = [saved for saved in log(other) if saved.nbytes == 2 * 8 * outputs]
        assert {(saved.store, saved.held) for saved in product} == {("again by to", 0)}


def test_autocast_of_weights_that_a_product_copies_in_another_order() -> None:
    functions: list[tuple[Any, tuple[int, ...]]] = [
        (lambda m, x: m.a(x) @ m.w, (3, 8, 5)),
        (lambda m, x: m.a(x)[0] @ m.w, (3, 8, 5)),
        (lambda m, x: m.w.mT @ m.a(x).t(), (3, 8, 5)),
        (lambda m, x: m.w @ m.a(x).t(), (3, 5, 8)),
        (lambda m, x: m.w @ m.a(x)[None].mT, (8, 8)),
        (lambda m, x: m.a(x)[:, None] @ m.w[None], (8, 5)),
        (lambda m, x: F.conv1d(m.a(x).view(1, 8, 6), m.w.mT), (8, 2, 8)),
        (lambda m, x: F.conv_transpose2d(m.a(x).view(1, 8, 2, 3), m.w), (8, 4, 2, 2)),
    ]
    for function, shape in functions:
        same_step(Net(function, a=linear(), w=weight(*shape)), rows(), around=bf16)


def test_autocast_of_an_activation_of_as_many_values_as_the_weight() -> None:
    def split(m: Net, x: Tensor) -> Any:
        return m.a(x).view(2, 4, 8)

    functions: list[tuple[Any, tuple[int, ...]]] = [
        (lambda m, x: split(m, x).transpose(0, 1) @ m.w, (8, 8)),
        (lambda m, x: F.linear(split(m, x).transpose(0, 1), m.w), (8, 8)),
        (lambda m, x: F.linear(split(m, x).mT, m.w), (16, 4)),
        (lambda m, x: m.w @ split(m, x), (16, 4)),
        (lambda m, x: m.w @ split(m, x).mT, (8, 8)),
        (lambda m, x: split(m, x)[:1] @ m.w, (2, 8, 4)),
        (lambda m, x: torch.bmm(split(m, x).mT, m.w), (2, 4, 8)),
        (lambda m, x: torch.addmm(m.a(x), m.a(x).t(), m.w), (8, 8)),
        (lambda m, x: F.conv1d(split(m, x).mT, m.w), (2, 8, 4)),
    ]
    for function, shape in functions:
        net = Net(function, a=linear(), w=weight(*shape))
        same_step(net, torch.randn(8, 8), around=bf16)


def test_autocast_of_a_weight_of_as_many_values_as_the_bias() -> None:
    def function(m: Net, x: Tensor) -> Any:
        return torch.addmm(m.bias, m.a(x), m.w)

    net = Net(function, a=linear(1, 1), w=weight(1, 8), bias=weight(8))
    same_step(net, torch.randn(6, 1), around=bf16)


def test_what_is_random_is_not_made_again() -> None:
    def function(m: Net, x: Tensor) -> Any:
        q, k, v = m.a(x).view(6, 3, 2, 4).permute(1, 2, 0, 3)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=0.5).transpose(0, 1).flatten(1)
        return m.b(F.dropout(out, 0.5)).tanh() + F.rrelu(out, training=True).exp()

    net = Net(function, a=linear(8, 24), b=linear())
    for spec in ("@*=>codes:bits=4", "recompute+@*=>codes:bits=4"):
        same_step(net, rows(), spec=spec)


def test_complex_numbers() -> None:
    def function(m: Net, x: Tensor) -> Any:
        c = torch.view_as_complex(m.a(x).view(6, 4, 2)) * m.w
        r = torch.fft.fft(c) * c
        conjugate = r.conj()
        i = conjugate.imag
        return (
            m.b(torch.cat([i * i * r.imag, i.tanh() * conjugate.abs()], 1)) + i.sum() * c.real.sum()
        )

    same_step(Net(function, a=linear(), b=linear(), w=weight(4)), rows())
    net = Net(lambda m, x: m.b((x * m.w).conj().imag * (x * m.w).imag), w=weight(8), b=linear())
    same_step(net, torch.randn(6, 8, dtype=torch.complex64))
    net = Net(lambda m, x: torch.fft.ifft(m.w * torch.fft.fft(m.a(x))), w=weight(8), a=linear())
    same_step(net, rows())


def test_autocast_of_weights_within_a_function() -> None:
    nets = [
        Net(lambda m, x: m.b(*[m.a(x)[None]] * 3)[0], b=nn.MultiheadAttention(8, 2), a=linear()),
        Net(
            lambda m, x: m.b(m.a(x)[None], x[None], x[None])[0],
            a=linear(), b=nn.MultiheadAttention(8, 2),
        ),
        Net(lambda m, x: torch.einsum("bi,oi->bo", m.a(x), m.w), a=linear(), w=weight(6, 8)),
        Net(lambda m, x: torch.einsum("bi,oi->bo", m.a(x), m.w), a=linear(), w=weight(8, 8)),
    ]  # fmt: skip
    for net in nets:
        other = same_step(net, rows(), around=bf16)
        assert all("kept" not in saved.store or saved.nbytes != 2 * 8 * 8 for saved in log(other))


def test_a_leaf_of_nobody_is_a_weight() -> None:
    prompt = torch.randn(8, 8, requires_grad=True)
    net = Net(lambda m, x: m.a(x) @ prompt, a=linear())
    other = same_step(net, rows())
    assert stores(other, "matmul") == ["kept"]


def pair(**more: Any) -> dict[str, Any]:
    return {"a": linear(), "b": linear(), **more}


def test_changes_in_place() -> None:
    def views(m: Net, x: Tensor) -> Any:
        h = m.a(x) * 2
        h[0].mul_(2)
        h[:, :1].add_(1)
        h[:, 4:] += h[:, :4].detach()
        h[1] = 3
        return m.b(h).tanh() * h.detach()

    def flags(m: Net, x: Tensor) -> Any:
        h = (F.relu(m.a(x), True) + x).masked_fill_(x > 1, 0.5)
        h = F.silu(F.dropout(h, 0.5, True, True) + x, inplace=True)
        h += x
        return m.b(h).sigmoid_()

    def data(m: Net, x: Tensor) -> Any:
        h = m.a(x) * 1
        y = h.detach().exp()
        h.data.mul_(2)
        h.add_(1)
        return m.b(h) * torch.tanh(h * 3) + y

    def running(m: Net, x: Tensor) -> Any:
        """What it reads of a buffer is what was there."""
        h = m.a(x).exp()
        y = h - m.mean
        m.mean.mul_(0.9).add_(h.detach().mean(0))
        return m.b(h.tanh()) + y * y + y.tanh()

    for small in (0, 64):
        for function in (views, flags, data, running):
            same_step(Net(function, **pair(mean=torch.zeros(8))), rows(), small=small)


def test_backward_twice_and_under_autocast() -> None:
    def function(m: Net, x: Tensor) -> Any:
        h = m.a(x)
        mask, order = h > 0, h.argsort(1)
        y = m.b(F.relu(h, False)) * F.silu(h, False) * F.gelu(h, approximate="tanh")
        z = torch.where(mask, h, y) + h.gather(1, order)
        return m.b(z * 2).tanh() * (mask * 2.0) * y * (order * 0.5)

    net = Net(function, **pair())
    x = rows()

    def twice(model: nn.Module) -> dict[str, Tensor]:
        model.zero_grad()
        loss = model(x).square().sum()
        loss.backward(retain_graph=True)
        loss.backward(retain_graph=True)
        with bf16():
            loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    for spec in ("@*=>codes:bits=4", "recompute+@*=>codes:bits=4"):
        other = twin(net, spec)
        with lossless():
            assert_equal(twice(other), twice(net))


def test_gradients_of_gradients_and_within_the_forward_pass() -> None:
    def function(m: Net, x: Tensor) -> Any:
        return F.softplus(m.b(F.gelu(m.a(x)).tanh())) * x

    net, x = Net(function, **pair()), rows(requires_grad=True)

    def penalty(model: nn.Module) -> dict[str, Tensor]:
        model.zero_grad()
        out = model(x).square().sum()
        (grad,) = torch.autograd.grad(out, x, create_graph=True)
        (out + grad.square().sum()).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    other = twin(net)
    with lossless():
        assert_equal(penalty(other), penalty(net), 1e-6)

    def forces(m: Net, x: Tensor) -> Any:
        x = x.detach().requires_grad_()
        energy = m.b(F.silu(m.a(x))) * x
        return torch.autograd.grad(energy.sum(), x, create_graph=True)[0].tanh() + energy

    def within(m: Net, x: Tensor) -> Any:
        h = m.a(x)
        h.pow(3).sum().backward(retain_graph=True)
        return m.b(h).tanh()

    for function in (forces, within):
        same_step(Net(function, **pair()), rows(), tolerance=1e-6)


def test_inputs_of_inference_mode() -> None:
    with torch.inference_mode():
        bias = rows()
    same_step(Net(lambda m, x: m.b((bias * 2 + m.a(x)).tanh() + bias), **pair()), rows())


def test_what_is_kept_is_watched_for_changes_as_dense_watches() -> None:
    for change in ("weight", "input", "dense"):
        net = Net(lambda m, x: m.b(m.a(x)).exp(), **pair())
        other: Any = twin(net, "@activation=>codes:bits=4")
        for model in (net, other):
            x = rows()
            out = model(x)
            with torch.no_grad():
                {"weight": model.b.weight, "input": x, "dense": out}[change].mul_(2)
            with pytest.raises(RuntimeError, match=r"in.?place"):
                out.sum().backward()


def test_a_pruned_tensor_serves_products_alone() -> None:
    def function(m: Net, x: Tensor) -> Any:
        h = m.a(x)
        out = m.b(h)
        for scale in (2, 3):
            out = out + F.layer_norm(h * scale, (8,)).tanh() * h
        return m.b(h) + out

    net = Net(function, **pair())
    other = twin(net, "@linear=>csr:sparsity=0.5;@*=>codes:bits=4")
    with lossless():
        step(other, rows())
    for saved in log(other):
        assert not saved.error or saved.store == "csr:sparsity=0.5"


def test_what_a_rule_keeps_dense_serves_all() -> None:
    def before(m: Net, x: Tensor) -> Any:
        h = m.a(x)
        return F.layer_norm(h, (8,)) + m.b(h)

    def after(m: Net, x: Tensor) -> Any:
        h = m.a(x)
        return m.b(h) + F.layer_norm(h, (8,))

    for function in (before, after):
        other = same_step(
            Net(function, **pair()), torch.randn(6000, 8), spec="@norm=>dense;@*=>codes:bits=4"
        )
        assert "dense" in stores(other, "layer_norm")
    other = twin(Net(after, **pair()), "@norm=>dense;@*=>codes:bits=2")
    x = torch.randn(6000, 8)
    found, exact = step(other, x), step(Net(after, a=other.a, b=other.b), x)
    assert "dense" in stores(other, "layer_norm")
    assert_equal(found, exact, 1e-6)  # what was coded first is kept whole as well


def test_a_store_for_products_goes_where_the_tensor_is_kept_dense_later() -> None:
    def function(m: Net, x: Tensor) -> Any:
        h = m.a(x)
        return m.b(h) + F.layer_norm(h, (8,))

    net = Net(function, **pair())
    other = twin(net, "@linear=>csr:sparsity=0.5")
    x = rows()
    with lossless():
        assert_equal(step(other, x), step(net, x))  # and so nothing is pruned


def test_a_slice_is_stored_without_the_rest() -> None:
    net = Net(lambda m, x: m.b(m.a(x)[:1000]).tanh(), **pair())
    for spec, most in (("@*=>codes:bits=4", 0.16), ("@linear=>csr:sparsity=0.9", 0.3)):
        other = twin(net, spec)
        step(other, torch.randn(6000, 8))
        (sliced,) = [saved for saved in log(other) if saved.nbytes == 1000 * 8 * 4][:1]
        assert sliced.function == "linear"
        assert sliced.held < most * sliced.nbytes


def test_what_is_kept_goes_with_the_graph_and_waits_for_no_collector() -> None:
    model = apply(nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)))
    kept: list[weakref.ref[Any]] = []
    pack = Coded.__init__

    def noted(self: Coded, *args: Any) -> None:
        pack(self, *args)
        kept.append(weakref.ref(self))

    gc.collect()
    gc.disable()
    try:
        with mock.patch.object(Coded, "__init__", noted):
            loss = model(torch.randn(128, 64)).square().mean()
        assert [ref() is not None for ref in kept] == [True]
        loss.backward()
        del loss
        assert [ref() for ref in kept] == [None]
    finally:
        gc.enable()


def test_statistics_are_kept_as_they_are() -> None:
    """What a softmax, a norm, sums up decides about many values: of few there is little to gain."""
    attention = Net(lambda m, x: F.scaled_dot_product_attention(m.a(x), x, x), a=linear(64, 64))
    other = twin(attention)
    other(torch.randn(8, 4, 128, 64, requires_grad=True))
    kept = [saved for saved in log(other) if saved.store == "statistic"]
    assert [saved.nbytes for saved in kept] == [8 * 4 * 128 * 4]  # the logarithms of sums
    normed = twin(nn.Sequential(linear(64, 64), nn.LayerNorm(64)))
    normed(torch.randn(4096, 64, requires_grad=True))
    assert [saved.store for saved in log(normed) if saved.nbytes == 4096 * 4] == ["statistic"] * 2


def test_a_small_view_leaves_the_rest_of_its_storage() -> None:
    stem, head = linear(64, 64), linear(64, 2)
    net = Net(lambda m, x: m.head(m.stem(x)[:, 0]), stem=stem, head=head)
    storages = []
    stem.register_forward_hook(lambda _, __, out: storages.append(out.untyped_storage()))
    other = twin(net)
    out = other(torch.randn(4, 256, 64))
    made = weakref.ref(storages.pop())
    assert made() is None
    same_step(net, torch.randn(4, 256, 64))
    assert out.requires_grad
