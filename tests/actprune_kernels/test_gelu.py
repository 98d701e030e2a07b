"""GELU and SiLU with their derivative in few bits; chains with it: tests/actprune/strategies."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actprune_kernels import gelu
from actprune_kernels.gelu import BITS, EDGES, NAMES, STEPS, cell, cpu, naive

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "silu": F.silu}


@pytest.mark.parametrize("kernel", [cpu, naive])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", NAMES)
def test_the_coded_derivative_is_within_its_bound(name: str, bits: int, kernel: ModuleType) -> None:
    h = torch.cat([torch.linspace(-9, 9, 20_001), 3 * torch.randn(1003)]).double()
    x = h.clone().requires_grad_()
    FUNCTIONS[name](x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    torch.testing.assert_close(naive.derivative(h, name), x.grad)
    assert float((x.grad - 0.5).abs().max()) == pytest.approx(EDGES[name], rel=1e-6)
    codes, levels = kernel.forward_(h, bits, name), torch.ones_like(h)
    torch.testing.assert_close(h, FUNCTIONS[name](x.detach()))
    kernel.backward_(levels, codes, bits, name)
    assert len(set(levels.tolist())) == 2**bits
    assert float((levels - x.grad).abs().max()) <= cell(bits, name) / 2 + 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_the_steps_of_two_bits_are_where_the_derivative_passes_from_cell_to_cell(name: str) -> None:
    at = torch.tensor([-STEPS[name], 0, STEPS[name]], dtype=torch.float64)
    expected = 0.5 + cell(2, name) * torch.tensor([-1.0, 0, 1]).double()
    torch.testing.assert_close(naive.derivative(at, name), expected, rtol=1e-14, atol=1e-14)


@given(
    n=st.integers(0, 5000),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    bits=st.sampled_from(BITS),
    name=st.sampled_from(NAMES),
)
def test_pieces_are_the_definition(n: int, dtype: torch.dtype, bits: int, name: str) -> None:
    h = (2 * torch.randn(n)).to(dtype)
    one, two = h.clone(), h.clone()
    alone = cpu.derivative_codes(h, bits, name)
    ours, theirs = cpu.forward_(one, bits, name), naive.forward_(two, bits, name)
    torch.testing.assert_close(one, two)
    assert torch.equal(alone, ours)
    differ = naive.unpacked(ours, n, bits) != naive.unpacked(theirs, n, bits)
    places = (naive.derivative(h[differ].double(), name) - (0.5 - EDGES[name])) / cell(bits, name)
    assert not differ.any() or float((places - places.round()).abs().max()) < 1e-5
    grad = torch.randn(n).to(dtype)
    mine, its = grad.clone(), grad.clone()
    cpu.backward_(mine, ours, bits, name)
    naive.backward_(its, ours, bits, name)
    assert torch.equal(mine, its)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_has_a_code_and_spoils_no_other(name: str, bits: int) -> None:
    h = torch.randn(1100)
    h[3], h[300], h[1030] = float("nan"), float("inf"), -float("inf")
    ours, theirs = h.clone(), h.clone()
    for kernel in (cpu, naive):
        alone = kernel.derivative_codes(h, bits, name)
        assert torch.equal(alone, kernel.forward_(h.clone(), bits, name))
    assert torch.equal(cpu.forward_(ours, bits, name), naive.forward_(theirs, bits, name))
    assert torch.equal(ours.isnan(), theirs.isnan())


def test_each_device_has_its_kernels() -> None:
    for device, name in (("cpu", "cpu"), ("meta", "naive")):
        assert gelu.backend(torch.device(device)).__name__.endswith(name)
    assert gelu.backend(torch.device("meta"), "triton").__name__.endswith("triton")
