"""Chains in models that are no ResMLP: what is recognised, and that the gradients stay."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actprune import InputError, convert, parse, saved_bytes
from actprune.strategies.lean import chains, lean, unlean
from actprune_bench.models import MODELS

NONE = "no GELU to another linear, no affine before, no scale after"


class Shift(nn.Module):
    """An affine as other libraries write it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.randn(1, 1, dim))
        self.beta = nn.Parameter(torch.randn(1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.beta, self.alpha, x)


class Whole(nn.Module):
    """Every pattern, with idle dropouts between, and two linears that are in none."""

    def __init__(self, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm, self.fc1 = Shift(dim), nn.Linear(dim, 3 * dim)
        self.act, self.drop, self.fc2 = nn.GELU(), nn.Dropout(dropout), nn.Linear(3 * dim, dim)
        self.scale = nn.Parameter(torch.randn(dim))
        self.alpha, self.beta = nn.Parameter(torch.randn(dim)), nn.Parameter(torch.randn(dim))
        self.mix = nn.Linear(dim, dim, bias=False)
        self.gate = nn.Parameter(torch.randn(dim))
        self.tied, self.head = nn.Linear(dim, dim), nn.Linear(dim, 5)

    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        x = x + self.scale * self.drop(self.fc2(self.drop(self.act(self.fc1(self.norm(x))))))
        x = x + self.mix(self.beta + x * self.alpha).mul(self.gate)
        x = self.tied(F.gelu(self.tied(x))) * factor
        out: Tensor = self.head(x.mean(1))
        return out


class Branching(nn.Module):
    """A forward that depends on the data, with an MLP in it."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Identity(), nn.Linear(12, 6))
        self.out = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.mlp(x)) if x.sum() > -1e9 else x
        return out


def gradients(model: nn.Module, x: Tensor, **options: Any) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    model.zero_grad()
    out = model(x, **options)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out))
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return found | {"x": x.grad}


def test_chains_are_named() -> None:
    mlp = "affine-linear-GELU-linear-scale"
    assert chains(Whole(6)) == {
        "fc1": mlp,
        "fc2": mlp,
        "mix": "affine-linear-scale",
        "tied": "used more than once",
        "head": NONE,
    }
    assert chains(Whole(6, dropout=0.1))["fc1"] == "affine-linear"
    assert chains(Whole(6, dropout=0.1))["fc2"] == NONE
    assert chains(nn.Sequential(nn.Linear(3, 4), nn.GELU("tanh"), nn.Linear(4, 2)))["0"] == NONE


@pytest.mark.parametrize("spec", ["dense", "bsr:block=1x4,sparsity=0", "coo:sparsity=0"])
def test_nothing_pruned_is_the_model(spec: str) -> None:
    plain = Whole(6).double()
    made = lean(convert(copy.deepcopy(plain), spec), gelu=None)
    x = torch.randn(3, 4, 6, dtype=torch.float64)
    for factor in (1.0, 2.0):  # a graph of the default, and the module's own forward
        torch.testing.assert_close(made(x, factor=factor), plain(x, factor), rtol=1e-12, atol=1e-12)
    ours, theirs = gradients(made, x), gradients(plain, x)
    assert set(ours) == set(theirs)
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-10, atol=1e-10)
    assert saved_bytes(made, x) < saved_bytes(plain, x)


def test_gradcheck_through_every_chain() -> None:
    model = lean(convert(Whole(3).double(), "csr:sparsity=0"), gelu=None)
    names = [name for name, _ in model.named_parameters()]

    def forward(x: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        result = torch.func.functional_call(model, given, (x,))
        assert isinstance(result, Tensor)
        return result

    x = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(forward, (x, *model.parameters()))


def test_pruned_chains_have_the_gradients_of_what_is_kept() -> None:
    spec = "csr:sparsity=0.5"
    plain = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6)).double()
    made = lean(convert(copy.deepcopy(plain), spec), gelu=None)
    x = torch.randn(8, 6, dtype=torch.float64)
    ours, theirs = gradients(made, x), gradients(plain, x)
    grad = torch.linspace(-1, 1, 48, dtype=torch.float64).view(8, 6)
    kept = parse(spec).compress(F.gelu(plain[0](x)).detach()).to_dense()
    torch.testing.assert_close(ours["2.weight"], grad.t() @ kept)
    assert not torch.allclose(ours["0.weight"], theirs["0.weight"])
    torch.testing.assert_close(ours["x"], theirs["x"])


def test_two_bits_are_what_the_mlp_keeps() -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))
    x = torch.randn(16, 8, requires_grad=True)
    lean(model)
    assert saved_bytes(model, x) == 16 * 8 * 4 + 16 * 32 * 4 + 16 * 32 // 4


def test_what_cannot_be_traced_is_searched_part_by_part() -> None:
    model = Branching()
    words = chains(model)
    assert words["mlp.0"] == words["mlp.3"] == "linear-GELU-linear"
    assert words["out"].startswith("its model cannot be traced: symbolically traced variables")
    plain = copy.deepcopy(model)
    lean(model, gelu=None)
    x = torch.randn(5, 6)
    for name, expected in gradients(plain, x).items():
        torch.testing.assert_close(gradients(model, x)[name], expected)


def test_eval_copies_and_the_way_back() -> None:
    model = Whole(6)
    before, x = saved_bytes(model, torch.randn(2, 3, 6)), torch.randn(2, 3, 6)
    keys = list(model.state_dict())
    lean(model)
    twin = copy.deepcopy(model)
    assert list(model.state_dict()) == keys
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not twin(x).any()  # a copy runs on its own parameters
    assert model(x).any()
    model.eval()
    assert torch.equal(model(x), unlean_copy(model)(x))
    unlean(model.train())
    assert saved_bytes(model, x) == before
    assert "forward" not in vars(model)


def unlean_copy(model: nn.Module) -> nn.Module:
    made = copy.deepcopy(model)
    unlean(made)
    return made


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_the_dtypes_of_the_plain_model(dtype: torch.dtype) -> None:
    plain = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
    model = lean(copy.deepcopy(plain), gelu=None)
    x = torch.randn(4, 8)
    with torch.autocast("cpu", dtype):
        assert model(x).dtype == plain(x).dtype == dtype
        ours, theirs = gradients(model, x), gradients(plain, x)
    for name, expected in theirs.items():
        assert ours[name].dtype == torch.float32
        torch.testing.assert_close(ours[name], expected, rtol=0.05, atol=0.05)


def test_a_model_without_a_chain_says_why() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(InputError, match=rf"lean: expected .*found none \(0: {NONE}; 2: {NONE}\)"):
        lean(model)
    with pytest.raises(InputError, match=r"found none \(no linear\)"):
        lean(nn.Sequential(nn.ReLU()))


def test_of_a_resmlp_the_blocks_are_left_to_the_block() -> None:
    model = MODELS["resmlp_tiny"](num_classes=10, in_channels=1)
    assert list(chains(model)) == ["head"]
