"""Codes of whole tensors: the definition, the fast path, and what both promise."""

from types import ModuleType
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor

from actprune_kernels import codes, sizes
from actprune_kernels.codes import BITS, LEAST, NOTHING, cpu, naive

LARGEST = torch.finfo(torch.float16).max
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
BOTH = pytest.mark.parametrize("kernel", [cpu, naive])


def round_trip(kernel: ModuleType, x: Tensor, bits: int, group: int) -> Tensor:
    """The values that come back, in the order of memory, as float64."""
    packed = kernel.pack(x, bits, group)
    back: Tensor = kernel.unpack(packed, bits, group, x.numel(), torch.float32)
    return back.double()


def spread(rows: int, group: int, seed: int) -> Tensor:
    """Groups of all magnitudes and offsets."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, group, generator=draw) * 10 ** (
        12 * torch.rand(rows, 1, generator=draw) - 6
    )
    return x + x.abs().amax(1, keepdim=True) * torch.randn(rows, 1, generator=draw).relu() * 3


def bound(values: Tensor, bits: int) -> Tensor:
    """How far each group of values (rows, group) may be off."""
    low, high = values.double().aminmax(dim=1)
    largest = torch.maximum(low.abs(), high.abs())
    step = (high - low) / ((1 << bits) - 1)
    if bits == 8:
        return 0.55 * step + 2.0**-23 * largest + 2.0**-118
    fp16 = (largest >= LEAST) & (largest <= LARGEST)
    rounding = torch.where(fp16, 2.0**-10 * largest + 2.0**-21, 2.0**-7 * largest)
    return 1.01 * step / 2 + rounding + NOTHING


@given(
    bits=st.sampled_from(BITS),
    group=st.sampled_from([32, 40, 64, 128]),
    n=st.integers(0, 700),
    dtype=st.sampled_from(DTYPES),
    piece=st.sampled_from([1, 200, 1 << 18]),
)
def test_pieces_are_the_definition(
    bits: int, group: int, n: int, dtype: torch.dtype, piece: int
) -> None:
    x = spread(-(-n // group), group, n).view(-1)[:n].clamp(-LARGEST, LARGEST).to(dtype)
    with patch.object(sizes, "at_once", lambda: piece):
        ours, theirs = cpu.pack(x, bits, group), naive.pack(x, bits, group)
        back = cpu.unpack(theirs, bits, group, n, dtype)
    assert ours.shape == (-(-n // group), codes.width(bits, group))
    assert torch.equal(ours, theirs)
    expected = naive.unpack(theirs, bits, group, n, dtype)
    assert back.shape == (n,)
    digits = torch.finfo(dtype).eps, 2**-22 * float(x.abs().max()) if n else 0
    rtol, atol = digits if bits == 8 else (0, 0)  # FBGEMM multiplies and adds at once
    torch.testing.assert_close(back, expected, rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize(
    "size", [1e-44, 1e-41, 1e-38, 1e-20, 1e-12, 1e-5, 1e-4, 1e-3, 1, 7e4, 1e6, 1e25]
)
@pytest.mark.parametrize("bits", BITS)
def test_groups_of_few_values_are_the_definition(bits: int, size: float) -> None:
    """Where FBGEMM's scale is negative, or none of fp16's, or 1."""
    draw = size * torch.randn(300, 1)
    few = torch.where(torch.rand(300, 32) < 0.5, draw, draw * (1 + 2.0**-13))
    near = draw + 15 * torch.rand(300, 32)
    for x in (draw.expand(300, 32).contiguous(), few, few.relu(), near, torch.rand(300, 32) * size):
        assert torch.equal(cpu.pack(x, bits, 32), naive.pack(x, bits, 32))


@given(
    x=arrays("float32", (3, 32), elements=st.floats(-(2.0**126), 2.0**126, width=32)),
    bits=st.sampled_from(BITS),
)
def test_any_finite_group_is_the_definitions(x: NDArray[np.float32], bits: int) -> None:
    values = torch.from_numpy(x) + 0.0  # no zero is negative: of both, either may be the least
    assert torch.equal(cpu.pack(values, bits, 32), naive.pack(values, bits, 32))


@pytest.mark.parametrize("bits", BITS)
def test_the_definition_codes_the_doubtful_groups_alone(bits: int) -> None:
    x = torch.rand(300, 32)
    x[::7], x[1::7], x[2::7] = 0, 2.5, 1e-7 * torch.randn(43, 32)
    x[290, 3] = torch.nan
    with patch.object(naive, "pack_rows", wraps=naive.pack_rows) as definition:
        ours = cpu.pack(x, bits, 32)
    rows = sum(len(call.args[0]) for call in definition.call_args_list)
    assert rows <= 43 + 1
    assert torch.equal(ours, naive.pack(x, bits, 32))
    with patch.object(naive, "pack_rows", side_effect=AssertionError):
        cpu.pack(torch.rand(300, 32) * (torch.arange(300) % 3 > 0)[:, None], bits, 32)


@BOTH
@given(
    bits=st.sampled_from(BITS),
    group=st.sampled_from([32, 64, 128]),
    rows=st.integers(1, 60),
    seed=st.integers(0, 2**20),
)
def test_no_value_is_off_by_more_than_half_a_step_and_the_rounding_of_scale_and_bias(
    kernel: ModuleType, bits: int, group: int, rows: int, seed: int
) -> None:
    x = spread(rows, group, seed)
    off = (round_trip(kernel, x, bits, group).view(-1, group) - x.double()).abs().amax(1)
    assert bool((off <= bound(x, bits)).all())


@BOTH
@pytest.mark.parametrize("bits", BITS)
def test_values_come_back_in_the_order_of_memory(kernel: ModuleType, bits: int) -> None:
    x = torch.randn(3, 10, 6, 7).to(memory_format=torch.channels_last)
    for one in (x, x[1:], x[1:].transpose(0, 1), x.permute(3, 1, 0, 2), x[2].permute(1, 2, 0)):
        flat = one.as_strided((one.numel(),), (1,), one.storage_offset())
        assert torch.equal(kernel.pack(one, bits, 32), kernel.pack(flat.clone(), bits, 32))
        back = kernel.unpack(kernel.pack(one, bits, 32), bits, 32, one.numel(), one.dtype)
        assert float((back.as_strided(one.shape, one.stride()) - one).abs().max()) <= 5 / 2**bits


@BOTH
def test_a_tensor_with_gaps_is_refused(kernel: ModuleType) -> None:
    message = (
        r"x: expected a tensor without gaps in memory, got shape \(4, 3\) with strides \(6, 1\)"
    )
    with pytest.raises(ValueError, match=message):
        kernel.pack(torch.randn(4, 6)[:, :3], 4, 32)


@BOTH
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_of_groups_without_negative_values_are_exact(
    kernel: ModuleType, dtype: torch.dtype, bits: int
) -> None:
    x = (spread(500, 32, 3) * torch.randn(500, 32)).relu().clamp(max=LARGEST).to(dtype)
    assert not round_trip(kernel, x, bits, 32)[x.view(-1) == 0].any()


@BOTH
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 0.3, -0.3, 7e4, -7e4, 1e-6, 1e30, -1e-15])
def test_groups_of_one_value(kernel: ModuleType, value: float, bits: int) -> None:
    back = round_trip(kernel, torch.full((70,), value), bits, 32)
    exact = value in (0.0, 1.0, -2.5) or bits == 8
    rounding = 2.0**-8 if abs(value) > LARGEST or abs(value) < LEAST else 2.0**-11
    expected = torch.tensor(value).double()
    assert bool(((back - expected).abs() <= (0 if exact else rounding * abs(value))).all())


@BOTH
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 5, 31, 95, 99])
def test_what_is_not_finite_spoils_its_own_group_alone(
    kernel: ModuleType, place: int, bad: float, bits: int
) -> None:
    x = torch.randn(100)
    x[place] = bad
    finite = round_trip(kernel, x, bits, 32).isfinite()
    spoiled = torch.arange(100) // 32 == place // 32
    assert torch.equal(finite, ~spoiled)


@BOTH
@pytest.mark.parametrize("bits", BITS)
def test_a_range_over_fp32_is_not_finite(kernel: ModuleType, bits: int) -> None:
    x = torch.linspace(-3.3e38, 3.3e38, 32)
    assert not round_trip(kernel, x, bits, 32).isfinite().any()


@BOTH
@pytest.mark.parametrize("bits", BITS)
def test_the_last_group_does_not_grow_and_one_element_is_exact(
    kernel: ModuleType, bits: int
) -> None:
    x = torch.cat([torch.zeros(32), torch.linspace(100, 101, 5)])
    assert float((round_trip(kernel, x, bits, 32)[32:] - x[32:]).abs().max()) < 1 / 2**bits
    assert float(round_trip(kernel, torch.tensor(3.5), bits, 32)) == 3.5


@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
def test_unpacking_into_a_given_buffer(kernel: ModuleType, dtype: torch.dtype) -> None:
    x, room = torch.randn(300).to(dtype), torch.empty(300, dtype=dtype)
    packed = kernel.pack(x, 4, 64)
    assert kernel.unpack(packed, 4, 64, 300, dtype, room) is room
    assert torch.equal(room, kernel.unpack(packed, 4, 64, 300, dtype))


@pytest.mark.parametrize("bits", BITS)
def test_rows_are_fbgemms(bits: int) -> None:
    name = {2: "2bit", 4: "4bit", 8: "byte"}[bits]
    x = torch.randn(50, 64)
    theirs = getattr(torch.ops.quantized, f"embedding_bag_{name}_prepack")(x)
    assert torch.equal(theirs, naive.pack(x, bits, 64))


@BOTH
@given(n=st.integers(0, 200))
def test_bits_of_booleans(kernel: ModuleType, n: int) -> None:
    mask = torch.rand(n) > 0.5
    whole = kernel.pack_bits(mask)
    assert (whole.shape, whole.dtype) == ((-(-n // 8),), torch.uint8)
    assert torch.equal(whole, naive.pack_bits(mask))
    back = kernel.unpack_bits(whole, n)
    assert torch.equal(back, mask)


@BOTH
@given(
    mask=st.lists(st.booleans(), min_size=1, max_size=200),
    patterns=st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 2),
    dtype=st.sampled_from([*DTYPES, torch.uint8, torch.int64]),
    piece=st.sampled_from([8, 64, 1 << 16]),
)
def test_two_values_of_any_bits(
    kernel: ModuleType,
    mask: list[bool],
    patterns: tuple[int, int],
    dtype: torch.dtype,
    piece: int,
) -> None:
    ints = torch.tensor(patterns).to(codes.PATTERNS[dtype.itemsize])
    x = ints[torch.tensor(mask).long()].view(dtype)
    with patch.object(cpu, "_AT_ONCE", piece):
        found = kernel.pack_two(x)
    assert found is not None
    whole, ends = found
    different = x.view(ints.dtype) != x.view(ints.dtype)[0]
    assert torch.equal(whole, naive.pack_bits(different))
    assert (ends.shape, ends.dtype) == ((2,), dtype)
    back = kernel.unpack_two(whole, ends, len(x))
    assert (back.shape, back.dtype) == (x.shape, dtype)
    assert torch.equal(back.view(ints.dtype), x.view(ints.dtype))


LENGTHS = pytest.mark.parametrize("n", [70, 500, 3 * (1 << 16) + 77])
"""Of less than a look at a few, of one piece, of several."""


@BOTH
@LENGTHS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "values", [(0.0, 1.0, -0.0), (0.0, 1.25, 1.5), (0.0, -torch.inf, torch.nan)]
)
def test_a_third_value_is_found_wherever_it_lies(
    kernel: ModuleType, values: tuple[float, float, float], n: int, dtype: torch.dtype
) -> None:
    first, second, third = torch.tensor(values, dtype=dtype)
    two = torch.where(torch.arange(n) % 3 == 0, first, second)
    assert kernel.pack_two(two) is not None
    for place in (0, 1, 63, 64, n // 2, n - 1):
        three = two.clone()
        three[place] = third
        assert kernel.pack_two(three) is None


@BOTH
@LENGTHS
def test_a_second_value_is_found_wherever_it_lies(kernel: ModuleType, n: int) -> None:
    for place in (0, 63, 64, n // 2, n - 1):
        x = torch.zeros(n)
        x[place] = -torch.inf
        found = kernel.pack_two(x)
        assert found is not None
        assert torch.equal(kernel.unpack_two(*found, n), x)


@given(
    ends=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    dtype=st.sampled_from([torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]),
)
def test_integers_stay_what_they_are(ends: list[int], dtype: torch.dtype) -> None:
    x = torch.tensor(ends, dtype=torch.int64).to(dtype)
    kept = codes.narrow(x)
    assert kept.dtype.itemsize <= dtype.itemsize
    assert torch.equal(kept.to(dtype), x)


@pytest.mark.parametrize(
    ("ends", "dtype"),
    [
        ((0, 255), torch.uint8),
        ((0, 256), torch.int16),
        ((-1, 0), torch.int16),
        ((-(2**15), 5), torch.int16),
        ((-(2**15) - 1, 5), torch.int32),
        ((0, 2**31), torch.int64),
    ],
)
def test_the_narrowest_integers(ends: tuple[int, int], dtype: torch.dtype) -> None:
    assert codes.narrow(torch.tensor(ends)).dtype == dtype
