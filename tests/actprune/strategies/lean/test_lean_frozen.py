"""Lean chains of which some arguments need no gradient, and of mixed dtypes, against plain ones."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actprune import convert, saved_bytes
from actprune.strategies.lean import lean
from actprune.strategies.lean.across import Across
from actprune.strategies.lean.chain import Chain
from actprune.strategies.lean.linears import Kept
from actprune_bench.models import MODELS, Block, LeanBlock

WHOLE = Kept("bsr:block=1x4,sparsity=0", None, None)
PRUNED = Kept("bsr:block=1x4,sparsity=0.9", None, None)
CHAIN = ("x", "alpha", "beta", "weight1", "bias1", "weight2", "bias2", "gamma")
FORMS = [
    CHAIN,
    ("x", "alpha", "beta", "weight1", "bias1", "gamma"),
    ("x", "weight1", "bias1", "weight2", "bias2"),
    ("x", "alpha", "beta", "weight1"),
    ("x", "weight1", "weight2", "gamma"),
]
ACROSS = ("x", "alpha", "beta", "weight", "bias", "gamma")
Tensors = dict[str, Tensor]


def tensors(
    names: tuple[str, ...], batch: int = 3, patches: int = 5, dim: int = 6, inner: int = 8
) -> Tensors:
    wide = inner if "weight2" in names else dim
    shapes = {
        "x": (batch, patches, dim),
        "alpha": (dim,),
        "beta": (dim,),
        "weight1": (wide, dim),
        "bias1": (wide,),
        "weight2": (dim, wide),
        "bias2": (dim,),
        "weight": (patches, patches),
        "bias": (patches,),
        "gamma": (dim,),
    }
    return {name: torch.randn(shapes[name], dtype=torch.float64) for name in names}


def chain(given: Tensors, residual: bool, kept: Kept, gelu: int | None = None) -> Tensor:
    arguments = [given.get(name) for name in CHAIN]
    out: Tensor = Chain.apply(*arguments, (kept, kept), gelu, residual)  # type: ignore[no-untyped-call]
    return out


def plain_chain(given: Tensors, residual: bool) -> Tensor:
    out = x = given["x"]
    if "alpha" in given:
        out = given["alpha"] * out + given["beta"]
    out = F.linear(out, given["weight1"], given.get("bias1"))
    if "weight2" in given:
        out = F.linear(F.gelu(out), given["weight2"], given.get("bias2"))
    out = given["gamma"] * out if "gamma" in given else out
    return x + out if residual else out


def across(given: Tensors, kept: Kept) -> Tensor:
    out: Tensor = Across.apply(*(given[name] for name in ACROSS), kept)  # type: ignore[no-untyped-call]
    return out


def plain_across(given: Tensors) -> Tensor:
    a = (given["alpha"] * given["x"] + given["beta"]).transpose(1, 2)
    return given["x"] + given["gamma"] * F.linear(a, given["weight"], given["bias"]).transpose(1, 2)


def gradients(run: Callable[[Tensors], Tensor], given: Tensors, needed: set[str]) -> Tensors:
    leaves = {name: t.clone().requires_grad_(name in needed) for name, t in given.items()}
    out = run(leaves)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out))  # type: ignore[no-untyped-call]
    return {name: t.grad for name, t in leaves.items() if t.grad is not None}


def held(run: Callable[[Tensors], Tensor], given: Tensors, needed: set[str]) -> int:
    leaves = {name: t.clone().requires_grad_(name in needed) for name, t in given.items()}
    weights = [t for name, t in leaves.items() if name != "x"]
    return saved_bytes(run, leaves, weights=weights)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("names", FORMS, ids="-".join)
def test_every_freezing_of_a_chain_has_the_plain_gradients(
    names: tuple[str, ...], residual: bool
) -> None:
    given = tensors(names)
    wanted = gradients(lambda leaves: plain_chain(leaves, residual), given, set(given))
    for needed in subsets(names):
        found = gradients(lambda leaves: chain(leaves, residual, WHOLE), given, needed)
        assert set(found) == needed
        for name, grad in found.items():
            torch.testing.assert_close(grad, wanted[name], rtol=1e-10, atol=1e-10)


def test_every_freezing_across_patches_has_the_plain_gradients() -> None:
    given = tensors(ACROSS)
    wanted = gradients(plain_across, given, set(given))
    for needed in subsets(ACROSS):
        found = gradients(lambda leaves: across(leaves, WHOLE), given, needed)
        assert set(found) == needed
        for name, grad in found.items():
            torch.testing.assert_close(grad, wanted[name], rtol=1e-10, atol=1e-10)


def subsets(names: tuple[str, ...]) -> list[set[str]]:
    """Which arguments need a gradient, in every way but none at all."""
    every = product([False, True], repeat=len(names))
    return [{n for n, flag in zip(names, flags, strict=True) if flag} for flags in every][1:]


@pytest.mark.parametrize("gelu", [2, None])
@pytest.mark.parametrize("names", FORMS, ids="-".join)
def test_no_freezing_of_a_chain_keeps_more_than_the_plain_one(
    names: tuple[str, ...], gelu: int | None
) -> None:
    given = tensors(names, 2, 40, 16, 64)
    for needed in subsets(names):
        ours = held(lambda leaves: chain(leaves, False, PRUNED, gelu), given, needed)
        assert ours <= held(lambda leaves: plain_chain(leaves, False), given, needed), needed


def test_no_freezing_across_patches_keeps_more_than_the_plain_one() -> None:
    given = tensors(ACROSS, 2, 40, 16, 64)
    for needed in subsets(ACROSS):
        ours = held(lambda leaves: across(leaves, PRUNED), given, needed)
        assert ours <= held(plain_across, given, needed), needed


@pytest.mark.parametrize("spec", ["dense", "bsr:block=1x32,sparsity=0", "csr:sparsity=0.9"])
def test_a_frozen_block_keeps_gelu_alone(spec: str) -> None:
    plain = MODELS["resmlp_tiny"](num_classes=10, in_channels=1).blocks[0].requires_grad_(False)
    assert isinstance(plain, Block)
    x = torch.randn(8, 64, 96, requires_grad=True)
    before = saved_bytes(plain, x)
    made = lean(convert(plain, spec), gelu=2)
    assert saved_bytes(made, x) == x.numel() * 4 * 2 // 8
    assert saved_bytes(made, x) < before
    made(x).sum().backward()
    assert x.grad is not None
    assert saved_bytes(made, x.detach()) == 0
    with torch.autocast("cpu", torch.bfloat16):  # W₂, W₁ and W in its dtype are held by both
        kept = saved_bytes(made, x)
        assert kept <= saved_bytes(unleaned(made), x)


def unleaned(made: nn.Module) -> nn.Module:
    made.__class__ = Block
    return made


DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("names", FORMS[:3], ids="-".join)
@pytest.mark.parametrize("residual", [False, True])
def test_dtypes_of_a_chain_are_those_of_the_plain_one(
    names: tuple[str, ...], residual: bool, autocast: torch.dtype | None
) -> None:
    every = tensors(names)
    for of_x, of_weights, of_rest in product(DTYPES, repeat=3):
        kinds = {"x": of_x, "alpha": of_rest, "beta": of_rest, "gamma": of_rest}
        given = {name: every[name].to(kinds.get(name, of_weights)) for name in names}
        if autocast is not None:
            linears = {n: t.to(autocast) for n, t in given.items() if n[0] in "wb" and n != "beta"}
        else:
            linears = {}
        try:
            with torch.autocast("cpu", autocast, enabled=autocast is not None):
                wanted = plain_chain(given, residual)
        except RuntimeError:  # W and what it multiplies are of two types
            continue
        out = chain(given | linears, residual, WHOLE)
        assert out.dtype == wanted.dtype, (of_x, of_weights, of_rest)
        torch.testing.assert_close(out.float(), wanted.float(), rtol=0.05, atol=0.3)
        found = gradients(
            lambda leaves: chain(leaves, residual, WHOLE), given | linears, set(names)
        )
        for name, grad in found.items():
            assert grad.dtype == (given | linears)[name].dtype


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_dtypes_of_a_block_are_those_of_the_plain_one(autocast: torch.dtype | None) -> None:
    for of_x, of_model in product(DTYPES, repeat=2):
        plain = Block(6, 5, 0.5).to(of_model)
        x = torch.randn(2, 5, 6).to(of_x).requires_grad_()
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            try:
                wanted = plain(x)
            except RuntimeError:
                continue
            made = lean(convert(plain, WHOLE.spec), gelu=None)
            assert isinstance(made, LeanBlock)
            out = made(x)
        assert out.dtype == wanted.dtype, (of_x, of_model)
        torch.testing.assert_close(out, wanted, rtol=0.02, atol=0.05)
        out.sum().backward()
        assert x.grad is not None
        assert x.grad.dtype == of_x
