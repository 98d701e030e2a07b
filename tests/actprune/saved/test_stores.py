"""Stores that lose nothing, and the groups of those that do."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actprune.saved.stores import FLOATS, Bits, Coded, Narrow, Whole, group_of, lossless

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


def bit_by_bit(x: Tensor) -> Tensor:
    return x.view(torch.uint8)


@given(
    values=st.lists(st.booleans(), min_size=1, max_size=200),
    ends=st.sampled_from(
        [(0.0, 1.0), (0.0, -math.inf), (0.0, 1.25), (-3.0, -3.0), (0.0, -0.0), (1.0, math.nan)]
    ),
    dtype=st.sampled_from([*FLOATS, torch.bool]),
)
def test_two_values_take_a_bit(
    values: list[bool], ends: tuple[float, float], dtype: torch.dtype
) -> None:
    mask = torch.tensor(values)
    whole = mask if dtype == torch.bool else torch.where(mask, *ends).to(dtype)
    store = lossless(whole)
    assert isinstance(store, Bits)
    assert store.nbytes == math.ceil(len(values) / 8)
    assert store.flat().dtype == dtype
    assert torch.equal(bit_by_bit(store.flat()), bit_by_bit(whole))


@given(
    values=st.lists(st.integers(-(2**40), 2**40) | st.integers(0, 300), min_size=1, max_size=50),
    dtype=st.sampled_from(INTEGERS),
)
def test_integers_are_exact(values: list[int], dtype: torch.dtype) -> None:
    whole = torch.tensor(values).to(dtype)
    store = lossless(whole)
    if store is not None:
        assert isinstance(store, Narrow)
        assert store.nbytes < whole.nbytes
        assert store.flat().dtype == dtype
        assert torch.equal(store.flat(), whole)


OTHERS = [
    torch.randn(99),
    torch.tensor([0, 1, math.nan]),
    torch.tensor([0, 1, -0.0]),
    torch.randn(9).to(torch.complex64),
    torch.empty(0),
    torch.empty(0, dtype=torch.int64),
]


@pytest.mark.parametrize("whole", OTHERS)
def test_what_has_no_small_exact_store_has_none(whole: Tensor) -> None:
    assert lossless(whole) is None


@given(st.lists(st.integers(1, 300), min_size=1, max_size=4), st.sampled_from([32, 64, 128]))
def test_groups_are_of_a_size_that_codes_take(shape: list[int], most: int) -> None:
    x = torch.empty(shape, device="meta")
    group = group_of(x.shape, x.stride(), most)
    assert group % 8 == 0
    assert 32 <= group <= most


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_come_back_in_their_dtype(bits: int, dtype: torch.dtype) -> None:
    x = torch.randn(1000).to(dtype)
    store = Coded(x, bits, 64)
    assert store.nbytes < x.nbytes
    assert store.flat().dtype == dtype
    assert (store.flat() - x).abs().max() <= 8 / (2**bits - 1)


def test_a_tensor_that_is_kept_whole_is_watched() -> None:
    x = torch.randn(9)
    store = Whole(x)
    assert store.flat() is x
    x.add_(1)
    with pytest.raises(
        RuntimeError, match=r"changed in place since the forward pass: shape \(9,\)"
    ):
        store.flat()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 197, 192), 96),
        ((4, 64, 56, 56), 64),
        ((4, 80, 28, 28), 128),
        ((8, 768), 128),
        ((8, 320), 64),
        ((8, 160), 80),
        ((5, 7), 128),
        ((3, 40), 40),
    ],
)
def test_a_group_is_a_whole_part_of_a_row(shape: tuple[int, ...], expected: int) -> None:
    x = torch.empty(shape)
    assert group_of(x.shape, x.stride()) == expected
    if x.dim() == 4:
        last = x.to(memory_format=torch.channels_last)
        pixel = 64 if x.shape[1] == 64 else 128  # a pixel's channels, or several pixels'
        assert group_of(last.shape, last.stride()) == pixel


def test_a_small_row_is_not_lost_beside_a_large_one() -> None:
    x = torch.randn(64, 192)
    x[::2] /= 1000
    back = Coded(x.view(-1), 4, group_of(x.shape, x.stride())).flat().view_as(x)
    off = (back - x).norm(dim=1) / x.norm(dim=1)
    assert float(off.max()) < 0.2
