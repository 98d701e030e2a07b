"""The row sums of a store times a matrix, some rows at a time, against the definition."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actprune import parse
from actprune.formats import FORMATS
from actprune.formats.base import Compressed
from actprune_kernels import sizes
from actprune_kernels.sizes import at_once, wide
from tests.actprune.formats.test_formats import DTYPES, SPECS, random_pair, specs
from tests.actprune.formats.test_formats import sizes as any_size
from tests.temporaries import largest_made


@contextmanager
def small(piece: int) -> Iterator[None]:
    """Pieces of so many elements."""
    with patch.object(sizes, "at_once", lambda: piece):
        yield


def definition(store: Compressed, v: torch.Tensor) -> torch.Tensor:
    return (store.format.to_dense(store) * v).sum(1, dtype=wide(v.dtype))


def check(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert got.dtype == expected.dtype
    tight = 1e-12 if got.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(got, expected, rtol=tight, atol=10 * tight)


@given(
    spec=specs(), size=any_size, dtype=st.sampled_from(DTYPES), piece=st.sampled_from([1, 200, 999])
)
def test_pieces_sum_to_the_whole(
    spec: str, size: tuple[int, int, int], dtype: torch.dtype, piece: int
) -> None:
    x, _ = random_pair(size, dtype)
    v = random_pair((size[0], size[1], 1), dtype)[0].flip(0)
    store = parse(spec).compress(x)
    expected = definition(store, v)
    with small(piece):
        got = store.format.row_dot(store, v)
    check(got, expected)


def test_every_format_is_among_the_specs() -> None:
    assert {spec.partition(":")[0] for spec in SPECS} == set(FORMATS)


@pytest.mark.usefixtures("poison_empty")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("spec", SPECS)
def test_pieces_of_odd_sizes(spec: str, dtype: torch.dtype) -> None:
    for rows, features in [(0, 5), (5, 0), (1, 1), (1, 70), (131, 37), (257, 33)]:
        x, v = torch.randn(2, rows, features).to(dtype)
        store = parse(spec).compress(x)
        with small(150):
            got, again = (store.format.row_dot(store, v) for _ in range(2))
        check(got, definition(store, v))
        assert torch.equal(got, again)


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
@pytest.mark.parametrize("spec", SPECS)
def test_pieces_make_little_at_once(spec: str, sparsity: float) -> None:
    torch.set_num_threads(1)
    x, v = torch.randn(2, 24576, 64)
    store = parse(spec.replace("sparsity=0.7", f"sparsity={sparsity}")).compress(x)
    made = largest_made(lambda *_: store.format.row_dot(store, v), *store.buffers, v)
    # an index of 8 bytes for each value
    assert made <= 2 * 4 * at_once() < x.nbytes / 2


@given(
    spec=specs(), size=any_size, dtype=st.sampled_from(DTYPES), piece=st.sampled_from([1, 200, 999])
)
def test_what_is_compressed_in_pieces_is_the_whole(
    spec: str, size: tuple[int, int, int], dtype: torch.dtype, piece: int
) -> None:
    x, _ = random_pair(size, dtype)
    importance = torch.rand(len(x)) + 0.1
    expected = parse(spec).compress(x, sample_importance=importance)
    with small(piece):
        got = parse(spec).compress(x, sample_importance=importance)
    for one, other in zip(got.buffers, expected.buffers, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("select", ["topk", "priority"])
@pytest.mark.parametrize("name", ["csr", "coo", "bitmap", "topk"])
def test_compressing_elements_makes_no_second_whole(name: str, select: str) -> None:
    x = torch.randn(8 * at_once() // 64, 64)
    format = parse(f"{name}:sparsity=0.9,select={select}")
    assert largest_made(format.compress_tensors, x, format.first_draw()) <= x.nbytes // 4


def test_two_of_four_are_chosen_piece_by_piece() -> None:
    x = torch.randn(16 * at_once() // 64, 64)  # 8 bytes an index, and half stay
    assert largest_made(parse("nm:2:4").compress_tensors, x, None) <= x.nbytes // 2
