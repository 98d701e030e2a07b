"""Layers that read one input keep one store, and no other input's."""

import copy

import pytest
import torch
from torch import Tensor, nn

from actprune import convert, saved_bytes

SPECS = ["csr:sparsity=0.5", "bsr:block=1x8,sparsity=0.5", "codes:bits=4"]


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(64, 64) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.q(x) * self.k(x) * self.v(x)
        return found


@pytest.mark.parametrize("spec", SPECS)
def test_queries_keys_and_values_keep_one_store(spec: str) -> None:
    heads, x = Heads(), torch.randn(128, 64, requires_grad=True)
    one = copy.deepcopy(heads)
    convert(heads, spec)
    convert(one, spec, include="q")
    products = 3 * x.nbytes + x.nbytes  # of three factors, and of the first two
    assert saved_bytes(heads, x) - products == saved_bytes(one, x) - products - x.nbytes
    whole = copy.deepcopy(heads)
    heads(x).sum().backward()
    expected = [parameter.grad for parameter in heads.parameters()]
    for name in "qkv":  # inputs of their own, of the same values
        layer = getattr(whole, name)
        layer.register_forward_pre_hook(lambda _, args: (args[0].clone(),))
    whole(x).sum().backward()
    for ours, theirs in zip(expected, whole.parameters(), strict=True):
        assert ours is not None
        assert theirs.grad is not None
        assert torch.equal(ours, theirs.grad)


def test_an_input_that_changed_is_another() -> None:
    layer = convert(nn.Linear(8, 8), "csr:sparsity=0.5")
    x = torch.randn(4, 8)
    first = layer(x).sum()
    x.mul_(-2)
    second = layer(x).sum()
    second.backward()
    changed, layer.weight.grad = layer.weight.grad, None
    first.backward()
    assert changed is not None
    assert layer.weight.grad is not None
    assert torch.allclose(layer.weight.grad * -2, changed)


def test_a_freed_input_leaves_nothing_to_its_successor() -> None:
    layer = convert(nn.Linear(8, 8), "csr:sparsity=0.5")
    for _ in range(20):  # often at the same address
        x = torch.randn(4, 8)
        kept = x.clone()
        out = layer(x).sum()
        del x
        layer.weight.grad = None
        out.backward()
        twin = convert(nn.Linear(8, 8), "csr:sparsity=0.5")
        twin.load_state_dict(layer.state_dict())
        twin(kept.clone()).sum().backward()
        assert layer.weight.grad is not None
        assert twin.weight.grad is not None
        assert torch.equal(layer.weight.grad, twin.weight.grad)
