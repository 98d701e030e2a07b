"""Quantized values: the definition, the fast path, and what stochastic rounding promises."""

from types import ModuleType
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actprune import parse
from actprune_bench.measure.tolerance import TOLERANCE, relative_error
from actprune_kernels import quantization, sizes
from actprune_kernels.quantization import BITS, KINDS, cpu, naive
from actprune_kernels.sizes import at_once
from tests.temporaries import largest_made

DRAW = torch.tensor([1, 2, 3])
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def decoded(parts: quantization.Parts, kind: str, width: int) -> Tensor:
    return cpu.decode(parts, kind, width, torch.float32)


@given(
    kind=st.sampled_from(KINDS),
    size=st.tuples(st.integers(0, 40), st.integers(1, 70)),
    dtype=st.sampled_from(DTYPES),
    piece=st.sampled_from([1, 64, 1 << 18]),
)
def test_pieces_are_the_definition(
    kind: str, size: tuple[int, int], dtype: torch.dtype, piece: int
) -> None:
    x = torch.randn(size, generator=torch.Generator().manual_seed(size[1])).to(dtype)
    with patch.object(sizes, "at_once", lambda: piece):
        ours, theirs = cpu.encode(x, kind, DRAW), naive.encode(x, kind, DRAW)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        back = cpu.decode(ours, kind, size[1], wide)
    for got, expected, empty in zip(ours, theirs, quantization.empty(x, *size, kind), strict=True):
        assert torch.equal(got, expected)
        assert (got.shape, got.dtype) == (empty.shape, empty.dtype)
    assert torch.equal(back, naive.decode(theirs, kind, size[1], wide))


@pytest.mark.parametrize("kernel", [cpu, naive])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bf16_and_fp8_are_torchs(dtype: torch.dtype, kernel: ModuleType) -> None:
    x = (torch.randn(50, 33) * torch.logspace(-3, 2, 50)[:, None]).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    (kept,) = kernel.encode(x, "bf16", None)
    assert torch.equal(kept, x.to(torch.bfloat16))
    assert torch.equal(kernel.decode((kept,), "bf16", 33, wide), x.to(torch.bfloat16).to(wide))
    kept, scales = kernel.encode(x, "fp8", None)
    a = scales.to(wide)[:, None]
    largest = (x.to(wide) / a).abs().amax(1)  # it and no more is what 448, the largest code, holds
    assert bool((largest <= 448).all())
    assert bool((largest > 448 * (1 - 2**-6)).all())
    expected = (x.to(wide) / a).to(torch.float8_e4m3fn)
    assert torch.equal(kept.view(torch.float8_e4m3fn).to(wide), expected.to(wide))
    back = kernel.decode((kept, scales), "fp8", 33, wide)
    assert torch.equal(back, expected.to(wide) * a)
    near = x.abs().to(wide) >= 2**-6 * a  # below, codes are no longer normal numbers
    off = (back - x.to(wide)).abs()
    assert bool((off[near] <= 2**-4 * x.abs().to(wide)[near]).all())
    assert bool((off <= (2**-10 * a).expand_as(off))[~near].all())


@pytest.mark.parametrize("name", ["csr", "bsr:block=1x8", "bsr:block=3x5"])
def test_bf16_values_of_a_store_are_torchs(name: str) -> None:
    x = torch.randn(40, 30)
    options = f"{name}{',' if ':' in name else ':'}sparsity=0.5"
    same, coded = (parse(f"{options}{kind}").compress(x) for kind in ("", ",values=bf16"))
    assert torch.equal(coded.to_dense(), same.to_dense().to(torch.bfloat16).float())


@pytest.mark.parametrize("kind", list(BITS))
def test_rounding_is_unbiased(kind: str) -> None:
    """The mean of every value within a bound that 1 in 10^6 fair tests breaks."""
    x = torch.randn(4, 9, dtype=torch.float64)
    draws = torch.stack(
        [
            cpu.decode(cpu.encode(x, kind, torch.tensor([5, 0, i])), kind, 9, torch.float64)
            for i in range(2000)
        ]
    )
    step = cpu.encode(x, kind, DRAW)[1].double()[:, None]
    spread = draws.std(0) / len(draws) ** 0.5
    error = (draws.mean(0) - x).abs()
    assert bool((error <= 6 * spread + step * 2**-16).all())
    assert float((draws - x).abs().max() / step.max()) <= 1  # and never off by more than a step
    nearest = ((x / step).round() * step - x).abs()  # which the bound would find
    assert bool((nearest > 6 * spread + step * 2**-16).any())


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_stay_zeros(kind: str) -> None:
    x = torch.randn(64, 32)
    x[:, ::3] = 0
    x[7] = 0
    back = decoded(cpu.encode(x, kind, DRAW), kind, 32)
    assert not back[:, ::3].any()
    assert not back[7].any()


@pytest.mark.parametrize(("kind", "bits"), BITS.items())
@pytest.mark.parametrize("sign", [1, -1])
def test_values_of_one_sign_have_all_levels(kind: str, bits: int, sign: int) -> None:
    x = sign * torch.linspace(0, 1, 4096)[None]
    back = decoded(cpu.encode(x, kind, DRAW), kind, 4096)
    levels = set(back.view(-1).tolist())
    assert 2**bits - 1 <= len(levels) <= 2**bits  # the scale is rounded up by up to 2^-7
    assert float(back.abs().max()) == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("kind", list(BITS))
def test_both_signs_share_the_levels(kind: str) -> None:
    x = torch.cat([torch.linspace(-0.05, 0, 500), torch.linspace(0, 1, 500)])[None]
    back = decoded(cpu.encode(x, kind, DRAW), kind, 1000)
    assert float(back.min()) < 0  # however small, it has a level
    assert float(back.max()) == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_shows_and_spoils_its_own_block_alone(kind: str, bad: float) -> None:
    x = torch.rand(6, 16)
    x[2, 5] = bad
    back = decoded(cpu.encode(x, kind, DRAW), kind, 16)
    assert not back[2, 5].isfinite()
    assert bool(back[[0, 1, 3, 4, 5]].isfinite().all())


@pytest.mark.parametrize("size", [1e38, 1e-30, 1e-42])
@pytest.mark.parametrize("kind", ["bf16", "fp8", "int8"])
def test_huge_and_tiny_values(kind: str, size: float) -> None:
    x = torch.linspace(-1, 1, 64)[None] * size
    error = (decoded(cpu.encode(x, kind, DRAW), kind, 64) - x).abs().max()
    assert float(error) <= max(0.07 * size, 2**-126)


def test_the_layout_of_a_byte() -> None:
    assert naive.packed(torch.tensor([[1, 2, 3, 0, 1]], dtype=torch.uint8), 4).tolist() == [
        [1 | 3 << 2 | 1 << 4, 2 | 0 << 2]
    ]
    bits = torch.randint(0, 2, (3, 21), dtype=torch.uint8)
    assert torch.equal(naive.unpacked(naive.packed(bits, 8), 8, 21), bits)


def test_draws_repeat_and_differ() -> None:
    x = torch.randn(8, 64)
    first = cpu.encode(x, "int4", DRAW)[0]
    assert torch.equal(first, cpu.encode(x, "int4", DRAW)[0])
    for other in ([0, 2, 3], [1, 0, 3], [1, 2, 0]):
        assert not torch.equal(first, cpu.encode(x, "int4", torch.tensor(other))[0])


def test_some_blocks_alone() -> None:
    x = torch.randn(10, 6)
    for dtype, factors in ((torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)):
        coded = quantization.Quantized(cpu.encode(x, "int4", DRAW), "int4", (10, 2, 3), dtype)
        whole = decoded(coded.parts, "int4", 6).view(10, 2, 3)
        assert torch.equal(coded[3:7], whole[3:7].to(factors))  # one rounding, however decoded
        assert torch.equal(quantization.dequantized(coded), whole.to(dtype))


@pytest.mark.parametrize("scope", ["column", "global"])
@pytest.mark.parametrize("kind", ["int4", "bf16"])
@pytest.mark.parametrize("name", ["bsr:block=32x32", "bsr:block=1x32", "bsr:block=5x7"])
def test_a_product_decodes_no_more_at_once_than_it_may(name: str, kind: str, scope: str) -> None:
    torch.set_num_threads(1)
    x, dy = torch.randn(12288, 64), torch.randn(12288, 4)
    store = parse(f"{name},sparsity=0,scope={scope},values={kind}").compress(x)
    expected = dy.t() @ store.to_dense()
    torch.testing.assert_close(store.grad_weight(dy), expected, rtol=1e-4, atol=1e-3)
    made = largest_made(lambda *_: store.format.grad_weight(store, dy), *store.buffers, dy)
    assert made <= 4 * at_once() < x.nbytes / 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_by_pieces_is_the_product(dtype: torch.dtype) -> None:
    x, dy = torch.randn(300, 40).to(dtype), torch.randn(300, 9).to(dtype)
    for scope in ("column", "row", "global"):
        spec = f"bsr:block=3x8,sparsity=0.3,scope={scope},values=int8"
        store = parse(spec).compress(x)
        with patch.object(sizes, "at_once", lambda: 7 * 3 * 8):
            got = store.grad_weight(dy)
        naive_one = parse(f"{spec},backend=naive").compress(x)
        expected = naive_one.grad_weight(dy)
        assert got.dtype == dtype
        assert relative_error(got, expected) <= 2 * TOLERANCE[dtype]
