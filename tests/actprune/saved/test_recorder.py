"""Gradients are dense's own where a store loses nothing, whatever a model computes."""

from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.twins import Net, log, same_step, step, twin


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
        coded = [saved for saved in log(other) if saved.store == "kept"]
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
    other = same_step(net, images, **({"around": bf16, "tolerance": 0.03} if autocast else {}))
    same_step(Net(function, **parts).to(memory_format=memory_format), images)
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
