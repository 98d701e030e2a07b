"""The lean block against the plain one, which shares nothing with its backward pass."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from actprune import convert, parse, redraw, saved_bytes
from actprune.strategies.lean import lean, unlean
from actprune_bench.measure.tolerance import relative_error
from actprune_bench.models import MODELS, Block, LeanBlock
from actprune_common.errors import InputError
from actprune_kernels import gelu
from actprune_kernels.gelu import BITS, EDGES, cell, cpu, naive
from actprune_kernels.sizes import at_once

WHOLE = "bsr:block=1x4,sparsity=0"
PRUNED = ["csr:sparsity=0.5", "bsr:block=2x3,sparsity=0.5", "coo:sparsity=0.5,scope=global"]


def blocks(
    spec: str, dim: int = 6, patches: int = 5, *, gelu: int | None = None, seed: int = 0
) -> tuple[LeanBlock, Block]:
    """A lean block and its plain twin, in float64, all parameters away from their first values."""
    torch.manual_seed(seed)
    plain = Block(dim, patches, 0.5).double()
    for parameter in plain.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    made = lean(convert(copy.deepcopy(plain), spec), gelu=gelu)
    assert isinstance(made, LeanBlock)
    return made, plain


def gradients(block: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    block.zero_grad()
    block(x).backward(grad)
    found = {name: p.grad for name, p in block.named_parameters()} | {"x": x.grad}
    return {name: grad for name, grad in found.items() if grad is not None}


def test_gradcheck_at_sparsity_zero_with_the_exact_derivative() -> None:
    block, _ = blocks(WHOLE, dim=4, patches=3)
    names = [name for name, _ in block.named_parameters()]

    def forward(x: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        result = torch.func.functional_call(block, given, (x,))
        assert isinstance(result, Tensor)
        return result

    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(forward, (x, *block.parameters()))


@given(st.integers(0, 3), st.integers(1, 7), st.integers(1, 9), st.sampled_from(["dense", WHOLE]))
def test_nothing_pruned_is_the_block(batch: int, patches: int, dim: int, spec: str) -> None:
    block, plain = blocks(spec, dim, patches)
    x, grad = torch.randn(2, batch, patches, dim, dtype=torch.float64)
    torch.testing.assert_close(block(x), plain(x), rtol=1e-12, atol=1e-12)
    ours, theirs = gradients(block, x, grad), gradients(plain, x, grad)
    assert set(ours) == set(theirs)
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("spec", PRUNED)
def test_pruning_touches_weights_alpha_and_gamma_alone(spec: str) -> None:
    block, plain = blocks(spec)
    x, grad = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(block(x), plain(x), rtol=1e-12, atol=1e-12)
    ours, theirs = gradients(block, x, grad), gradients(plain, x, grad)
    approximate = {name for name in theirs if relative_error(ours[name], theirs[name]) > 1e-12}
    assert approximate == {
        *("attn.weight", "mlp.fc1.weight", "mlp.fc2.weight"),
        *("norm1.alpha", "norm2.alpha", "gamma_1", "gamma_2"),
    }


def test_approximate_gradients_are_those_of_the_kept_inputs() -> None:
    """A block whose linears see what was kept, for their weights, has the same gradients."""
    spec = "csr:sparsity=0.5"
    block, plain = blocks(spec)
    x, grad = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    ours = gradients(block, x, grad)

    def kept(matrix: Tensor) -> Tensor:
        return parse(spec).compress(matrix.contiguous()).to_dense()

    middle = x + plain.gamma_1 * plain.attn(plain.norm1(x).transpose(1, 2)).transpose(1, 2)
    u = nn.functional.gelu(plain.mlp.fc1(plain.norm2(middle)))
    d_out = grad.reshape(-1, 6)
    s = d_out.t() @ kept(u.reshape(-1, 24))
    torch.testing.assert_close(ours["mlp.fc2.weight"], plain.gamma_2[:, None] * s)
    expected = (plain.mlp.fc2.weight * s).sum(1) + plain.mlp.fc2.bias * d_out.sum(0)
    torch.testing.assert_close(ours["gamma_2"], expected)


def test_random_selection_is_unbiased_in_every_gradient() -> None:
    spec = "bsr:block=1x2,sparsity=0.5,select=priority"
    block, plain = blocks(spec)
    x, grad = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    expected = gradients(plain, x, grad)
    draws = 400
    sums = {name: torch.zeros(2, *g.shape, dtype=g.dtype) for name, g in expected.items()}
    for count in range(draws):
        block.zero_grad()
        redraw(block, count)
        for name, g in gradients(block, x, grad).items():
            sums[name] += torch.stack([g, g * g])
    for name, (total, squares) in sums.items():
        mean = total / draws
        error = ((squares / draws - mean**2).clamp(min=0) / draws).sqrt()
        worst = ((mean - expected[name]).abs() / (error + 1e-12)).max()
        assert worst < 5, name  # standard errors, over 300 entries


def test_draws_repeat_and_counts_differ() -> None:
    spec = "bsr:block=1x2,sparsity=0.5,select=priority"
    x, grad = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    one, two = (blocks(spec)[0] for _ in range(2))
    first = gradients(one, x, grad)["attn.weight"].clone()
    assert torch.equal(first, gradients(two, x, grad)["attn.weight"])
    one.zero_grad()
    redraw(one, 1)
    assert not torch.equal(first, gradients(one, x, grad)["attn.weight"])


@pytest.mark.parametrize("bits", BITS)
def test_it_keeps_its_stores_and_few_bits(bits: int) -> None:
    spec = "bsr:block=1x4,sparsity=0.75"
    block, plain = blocks(spec, dim=8, patches=16, gelu=bits)
    x = torch.randn(4, 16, 8, dtype=torch.float64, requires_grad=True)
    stores = [
        parse(spec).compress(torch.ones(*shape, dtype=torch.float64)).nbytes
        for shape in ((32, 16), (64, 8), (64, 32))
    ]
    assert saved_bytes(block, x) == sum(stores) + 64 * 32 * bits // 8
    assert saved_bytes(plain, x) > 4 * saved_bytes(block, x)


@pytest.mark.parametrize("bits", BITS)
def test_the_coded_derivative_is_within_its_bound(bits: int) -> None:
    h = torch.cat([torch.linspace(-9, 9, 100_001), 3 * torch.randn(10_003)]).double()
    x = h.clone().requires_grad_()
    nn.functional.gelu(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert float((x.grad - 0.5).abs().max()) <= EDGES["gelu"]
    codes, levels = gelu.backend(h.device).forward_(h, bits), torch.ones_like(h)
    torch.testing.assert_close(h, nn.functional.gelu(x.detach()))
    gelu.backend(h.device).backward_(levels, codes, bits)
    assert len(set(levels.tolist())) == 2**bits
    assert float((levels - x.grad).abs().max()) <= cell(bits) / 2 + 1e-12


@given(
    st.integers(0, 9),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    st.sampled_from(BITS),
)
def test_pieces_are_the_definition(extra: int, dtype: torch.dtype, bits: int) -> None:
    h = (2 * torch.randn(2 * at_once() + extra)).to(dtype)
    one, two = h.clone(), h.clone()
    ours, theirs = cpu.forward_(one, bits), naive.forward_(two, bits)
    torch.testing.assert_close(one, two)
    count = len(h)
    differ = naive.unpacked(ours, count, bits) != naive.unpacked(theirs, count, bits)
    places = (naive.derivative(h[differ].double()) - (0.5 - EDGES["gelu"])) / cell(bits)
    near = (places - places.round()).abs() * cell(bits)
    assert not differ.any() or float(near.max()) < 1e-6  # only where rounding decides
    grad = torch.randn(count).to(dtype)
    mine, its = grad.clone(), grad.clone()
    cpu.backward_(mine, ours, bits)
    naive.backward_(its, ours, bits)
    assert torch.equal(mine, its)


@pytest.mark.parametrize("bits", BITS)
def test_a_diverging_run_still_shows(bits: int) -> None:
    h = torch.tensor([math.nan, math.inf, -math.inf, 1.0])
    for kernel in (naive, cpu):
        made = h.clone()
        codes = kernel.forward_(made, bits)
        assert torch.equal(made.isnan(), nn.functional.gelu(h).isnan())
        assert bool(made[0].isnan())
        levels = torch.ones(4)
        kernel.backward_(levels, codes, bits)
        assert bool(levels.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", BITS)
def test_what_is_not_finite_spoils_no_other_code(bits: int, dtype: torch.dtype) -> None:
    h = torch.full((2 * 1024 + 300,), 3.0, dtype=dtype)
    whole = naive.unpacked(naive.forward_(h.clone(), bits), len(h), bits)
    h[5], h[900], h[1030], h[-1] = math.nan, math.inf, -math.inf, -math.nan
    ours, theirs = (kernel.forward_(h.clone(), bits) for kernel in (cpu, naive))
    assert torch.equal(ours, theirs)
    codes = naive.unpacked(ours, len(h), bits)
    assert (codes != whole).nonzero().view(-1).tolist() == [5, 1030, len(h) - 1]
    assert codes[5] == codes[-1] == 0
    assert codes[900] == whole[900]  # at Inf the derivative is 1, at -Inf 0
    levels = torch.ones(len(h), dtype=dtype)
    cpu.backward_(levels, ours, bits)
    assert abs(float(levels[900]) - 1) <= cell(bits) / 2
    assert abs(float(levels[1030])) <= cell(bits) / 2


def test_other_bits_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
    with pytest.raises(InputError, match=r"^gelu: expected 2 or 4 bits, or None, got 3$"):
        lean(model, gelu=3)


def test_in_eval_mode_and_without_gradients_it_is_the_block() -> None:
    block, plain = blocks("csr:sparsity=0.9", gelu=2)
    x, grad = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(block(x), plain(x))
    block.eval()
    for frozen in (block.attn, block.mlp.fc1, block.mlp.fc2):
        frozen.weight.requires_grad_(False)
    block.zero_grad()
    ours, theirs = gradients(block, x, grad), gradients(plain, x, grad)
    for name, found in ours.items():
        torch.testing.assert_close(found, theirs[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_multiplies_and_keeps_in_its_dtype(dtype: torch.dtype) -> None:
    block, plain = (each.float() for each in blocks(WHOLE, dim=16, patches=12))
    x, grad = torch.randn(2, 8, 12, 16)
    expected = gradients(plain, x, grad)
    with torch.autocast("cpu", dtype):
        assert block(x).dtype == torch.float32
        ours, theirs = gradients(block, x, grad), gradients(plain, x, grad)
        kept = saved_bytes(block, x.requires_grad_())
    assert kept < 0.6 * saved_bytes(block, x)
    for name, exact in expected.items():
        assert ours[name].dtype == torch.float32
        # as far from fp32 as the plain block is, but for the order of roundings
        bound = 2 * relative_error(theirs[name], exact) + 3 * torch.finfo(dtype).eps
        assert relative_error(ours[name], exact) <= bound, name


def test_unlean_and_models_without_a_block() -> None:
    block, plain = blocks("csr:sparsity=0.9")
    assert list(block.state_dict()) == list(plain.state_dict())
    unlean(block)
    assert type(block) is Block
    assert "gelu" not in vars(block)
    with pytest.raises(
        InputError, match=r"lean: expected ResMLP blocks, .*, found none \(no linear\)"
    ):
        lean(nn.GELU())


def test_the_last_affine_keeps_nothing() -> None:
    plain = MODELS["resmlp_tiny"](num_classes=5, in_channels=1).double()
    for parameter in plain.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    made = lean(copy.deepcopy(plain))
    x = torch.randn(4, 64, 96, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(made.pooled(x), plain.pooled(x), rtol=1e-12, atol=1e-12)
    grads = [
        torch.autograd.grad(model.pooled(x).square().sum(), (x, *model.norm.parameters()))
        for model in (made, plain)
    ]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert saved_bytes(made.pooled, x) == 4 * 96 * 8
    assert saved_bytes(plain.pooled, x) == 4 * 64 * 96 * 8
    unlean(made)
    assert type(made) is type(plain)
