"""GELU, SiLU and their coded derivatives in Triton's interpreter, on poisoned memory."""

import pytest
import torch

from actprune_kernels import launch
from actprune_kernels.backends import interpreted
from actprune_kernels.gelu import BITS, EDGES, NAMES, cell, naive, triton

pytestmark = [
    pytest.mark.skipif(not interpreted(), reason="Triton runs on a GPU here: see tests/gpu"),
    pytest.mark.usefixtures("poison_empty"),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [0, 1, 7, 1024, 2048 + 333])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", NAMES)
def test_values_and_codes_are_those_of_the_definition(
    name: str, bits: int, n: int, dtype: torch.dtype
) -> None:
    h = (2 * torch.randn(n)).to(dtype)
    ours, theirs = h.clone(), h.clone()
    alone = triton.derivative_codes(h, bits, name)
    codes, expected = triton.forward_(ours, bits, name), naive.forward_(theirs, bits, name)
    assert torch.equal(alone, codes)
    torch.testing.assert_close(ours, theirs)
    assert (codes.shape, codes.dtype) == (expected.shape, torch.uint8)
    differ = naive.unpacked(codes, n, bits) != naive.unpacked(expected, n, bits)
    places = naive.derivative(h[differ].double(), name) - (0.5 - EDGES[name])
    near = (places / cell(bits, name) - (places / cell(bits, name)).round()).abs()
    assert not differ.any() or float(near.max()) < 1e-5  # only where rounding decides
    grad = torch.randn(n).to(dtype)
    mine, its = grad.clone(), grad.clone()
    triton.backward_(mine, expected, bits, name)
    naive.backward_(its, expected, bits, name)
    torch.testing.assert_close(mine, its)


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # inf * 0, as on a GPU
@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_has_a_code_and_spoils_no_other(name: str, bits: int) -> None:
    h = torch.randn(1100)
    h[3], h[300], h[1030] = float("nan"), float("inf"), -float("inf")
    ours, theirs = h.clone(), h.clone()
    codes, expected = triton.forward_(ours, bits, name), naive.forward_(theirs, bits, name)
    assert torch.equal(codes, expected)
    assert bool(ours[3].isnan())
    torch.testing.assert_close(ours[h.isfinite()], theirs[h.isfinite()])


@pytest.mark.parametrize("bits", BITS)
def test_nothing_waits_for_the_data(bits: int) -> None:
    h = torch.empty(3000, device="meta", dtype=torch.bfloat16)
    with launch.record() as launches:
        triton.backward_(h, triton.forward_(h, bits), bits)
    assert [made.kernel.__name__ for made in launches] == ["_forward"] * 2 + ["_backward"] * 2
