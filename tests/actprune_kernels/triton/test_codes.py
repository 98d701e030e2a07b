"""Codes of whole tensors in Triton's interpreter, against the definition, on poisoned memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from actprune_kernels import launch
from actprune_kernels.backends import interpreted
from actprune_kernels.codes import BITS, naive, triton
from tests.actprune_kernels.test_codes import bound, spread

pytestmark = [
    pytest.mark.skipif(not interpreted(), reason="Triton runs on a GPU here: see tests/gpu"),
    pytest.mark.usefixtures("poison_empty"),
    pytest.mark.filterwarnings("ignore:overflow encountered"),  # of a range, as on a GPU
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 31, 128, 5000, 9 * 128 + 5])
@pytest.mark.parametrize("group", [32, 40, 128])
@pytest.mark.parametrize("bits", BITS)
def test_rows_and_values_are_those_of_the_definition(
    bits: int, group: int, n: int, dtype: torch.dtype
) -> None:
    x = spread(-(-n // group), group, n).view(-1)[:n].clamp(-6e4, 6e4).to(dtype)
    got, expected = triton.pack(x, bits, group), naive.pack(x, bits, group)
    assert torch.equal(got, expected)
    back = triton.unpack(expected, bits, group, n, torch.float32)
    assert torch.equal(back, naive.unpack(expected, bits, group, n, torch.float32))
    room = torch.empty(n, dtype=torch.float16)
    assert triton.unpack(expected, bits, group, n, torch.float16, room) is room
    assert torch.equal(room, back.half())


@settings(max_examples=25)
@given(
    x=arrays("float32", (3, 32), elements=st.floats(-(2.0**126), 2.0**126, width=32)),
    bits=st.sampled_from(BITS),
)
def test_any_finite_group_is_the_definitions(x: NDArray[np.float32], bits: int) -> None:
    values = torch.from_numpy(x) + 0.0  # no zero is negative: of both, either may be the least
    packed = triton.pack(values, bits, 32)
    assert torch.equal(packed, naive.pack(values, bits, 32))
    back = triton.unpack(packed, bits, 32, 96, torch.float32).view(3, 32)
    off = (back.double() - values.double()).abs().amax(1)
    assert bool((off <= bound(values, bits)).all())


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("bits", BITS)
def test_what_is_not_finite_spoils_its_own_group_alone(bits: int, wrong: float) -> None:
    for place in (0, 40, 99):
        x = torch.randn(100)
        x[place] = wrong
        back = triton.unpack(triton.pack(x, bits, 32), bits, 32, 100, torch.float32)
        assert torch.equal(back.isfinite(), torch.arange(100) // 32 != place // 32)


@pytest.mark.parametrize("bits", BITS)
def test_a_range_over_fp32_is_not_finite(bits: int) -> None:
    x = torch.linspace(-3.3e38, 3.3e38, 32)
    back = triton.unpack(triton.pack(x, bits, 32), bits, 32, 32, torch.float32)
    assert not back.isfinite().any()


def test_values_are_coded_in_the_order_of_memory() -> None:
    x = torch.randn(2, 8, 5, 5).to(memory_format=torch.channels_last)[1:]
    assert torch.equal(triton.pack(x, 4, 32), naive.pack(x, 4, 32))


@pytest.mark.parametrize("n", [0, 1, 8, 4095, 4096, 5001])
def test_bits_of_booleans(n: int) -> None:
    mask = torch.rand(n) > 0.5
    whole = triton.pack_bits(mask)
    assert torch.equal(whole, naive.pack_bits(mask))
    assert torch.equal(triton.unpack_bits(whole, n), mask)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_two_values(dtype: torch.dtype) -> None:
    x = torch.where(torch.rand(5001) > 0.5, -0.0, -torch.inf).to(dtype)
    found, expected = triton.pack_two(x), naive.pack_two(x)
    assert found is not None
    assert expected is not None
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert torch.equal(triton.unpack_two(*found, 5001), x)
    x[5000] = 0.0
    assert triton.pack_two(x) is None


@pytest.mark.parametrize("bits", BITS)
def test_fp64_and_nothing(bits: int) -> None:
    x = torch.randn(50, dtype=torch.float64)
    packed = triton.pack(x, bits, 32)
    assert torch.equal(packed, naive.pack(x, bits, 32))
    assert triton.unpack(packed, bits, 32, 50, torch.float64).dtype == torch.float64
    assert (
        triton.unpack(triton.pack(x[:0].float(), bits, 32), bits, 32, 0, torch.float32).numel() == 0
    )


@pytest.mark.parametrize("bits", BITS)
def test_nothing_waits_for_the_data(bits: int) -> None:
    with launch.record() as launches:
        for n in (128 * 1000, 128 * 1000 + 1):
            x = torch.empty(n, device="meta", dtype=torch.bfloat16)
            triton.unpack(triton.pack(x, bits, 128), bits, 128, n, x.dtype)
        triton.unpack_bits(triton.pack_bits(x > 0), n)
    names = [made.kernel.__name__ for made in launches]
    assert names == ["_pack", "_unpack"] + ["_pack"] * 2 + ["_unpack"] * 2 + [
        "_pack_bits",
        "_unpack_bits",
    ]
