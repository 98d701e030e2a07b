"""Values in fewer bits in Triton's interpreter, against the definition, on poisoned memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor

from actprune import Compressed, parse
from actprune_bench.measure.tolerance import TOLERANCE, relative_error
from actprune_kernels import launch
from actprune_kernels.backends import interpreted
from actprune_kernels.quantization import BITS, KINDS, naive, triton
from actprune_kernels.sizes import SCOPES
from tests.sampling import sampled

pytestmark = [
    pytest.mark.skipif(not interpreted(), reason="Triton runs on a GPU here: see tests/gpu"),
    pytest.mark.usefixtures("poison_empty"),
]
DRAW = torch.tensor([2**40 + 3, 5, 11])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (40, 33), (9, 128), (2, 5000)])
@pytest.mark.parametrize("kind", BITS)
def test_grids_and_decoded_values_are_those_of_the_definition(
    kind: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    x = torch.randn(shape).to(dtype)
    got, expected = triton.encode(x, kind, DRAW), naive.encode(x, kind, DRAW)
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    assert torch.equal(got[1], expected[1])
    assert torch.equal(got[2], expected[2])
    decoded = triton.decode(got, kind, shape[1], torch.float32)
    assert torch.equal(decoded, naive.decode(got, kind, shape[1], torch.float32))
    assert bool(((decoded - x.float()).abs() <= 1.001 * got[1].float()[:, None]).all())


@settings(max_examples=25)
@given(
    x=arrays("float32", (3, 5), elements=st.floats(-(2.0**126), 2.0**126, width=32)),
    kind=st.sampled_from(list(BITS)),
)
def test_any_finite_block_stays_within_a_level(x: NDArray[np.float32], kind: str) -> None:
    blocks = torch.from_numpy(x)
    parts, expected = triton.encode(blocks, kind, DRAW), naive.encode(blocks, kind, DRAW)
    assert torch.equal(parts[1], expected[1])
    assert torch.equal(parts[2], expected[2])
    decoded = triton.decode(parts, kind, 5, torch.float32).double()
    bound = parts[1].double()[:, None] * 1.001
    assert bool(((decoded - blocks.double()).abs() <= bound).all())
    assert torch.equal(decoded[blocks == 0], torch.zeros_like(decoded[blocks == 0]))


@pytest.mark.parametrize("kind", BITS)
def test_rounding_is_unbiased_and_repeats(kind: str) -> None:
    x = torch.randn(8, 32)
    draws = [torch.tensor([7, 1, counter]) for counter in range(100)]
    made = [triton.encode(x, kind, draw) for draw in draws]
    values = torch.stack([triton.decode(each, kind, 32, torch.float32) for each in made])
    error = values.double().mean(0) - x.double()
    deviation = made[0][1].double()[:, None] / 2  # of a coin between two levels: at most
    assert bool((error.abs() <= 5 * deviation / len(draws) ** 0.5 + 1e-6).all())
    assert not torch.equal(made[0][0], made[1][0])
    again = triton.encode(x, kind, draws[0])
    assert all(map(torch.equal, again, made[0]))


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # inf * 0, as on a GPU
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", BITS)
def test_a_block_that_is_not_finite_has_no_finite_value(kind: str, wrong: float) -> None:
    x = torch.randn(3, 10)
    x[1, 4] = wrong
    values = triton.decode(triton.encode(x, kind, DRAW), kind, 10, torch.float32)
    assert not values[1].isfinite().any()
    assert values[[0, 2]].isfinite().all()


@pytest.mark.parametrize(
    ("kind", "block", "dtype"),
    sampled(KINDS, ["1x32", "7x5", "64x32", "1x128"], [torch.float32, torch.float16]),
)
def test_products_against_float64(kind: str, block: str, dtype: torch.dtype) -> None:
    x, dy = torch.randn(150, 101).to(dtype), torch.randn(150, 33).to(dtype)
    for scope in SCOPES:
        spec = f"bsr:block={block},sparsity=0.5,values={kind},scope={scope},backend=triton"
        store = parse(spec).compress(x, DRAW)
        grad = store.grad_weight(dy)
        assert grad.dtype == dtype
        expected = dy.double().t() @ store.to_dense().double()
        assert relative_error(grad, expected) <= TOLERANCE[dtype], scope


def every_fp8() -> Tensor:
    return torch.arange(256, dtype=torch.uint8)


def test_each_fp8_code_is_read_as_torch_reads_it() -> None:
    expected = every_fp8().view(torch.float8_e4m3fn).float() * 0.5
    format = parse("bsr:block=1x1,sparsity=0,values=fp8,backend=triton")
    rows = torch.arange(256, dtype=torch.int32)
    colptr = torch.tensor([0, 256], dtype=torch.int32)
    scales = torch.full((256,), 0.5, dtype=torch.bfloat16)
    for code in (0, 1, 7, 8, 0x3F, 0x7E, 0x80, 0x81, 0xC5, 0xFE, 0x7F, 0xFF):
        dy = torch.zeros(256, 1)
        dy[code] = 1
        codes_of = every_fp8().view(256, 1).clone()
        codes_of[[0x7F, 0xFF]] = 0  # NaN times 0 would be in every sum
        codes_of[code] = code
        store = Compressed(format, (256, 1), dy.dtype, (codes_of, scales, rows, colptr))
        grad = format.grad_weight(store, dy)
        torch.testing.assert_close(grad[0, 0], expected[code], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", ["1x32", "64x64", "3x5"])
def test_nothing_waits_for_the_data_and_nothing_is_decoded_as_a_whole(
    block: str, kind: str
) -> None:
    format = parse(f"bsr:block={block},sparsity=0.9,values={kind},backend=triton")
    x = torch.empty(5000, 300, device="meta")
    with launch.record() as launches:
        draw = torch.empty(3, dtype=torch.int64, device="meta")
        store = Compressed(format, (5000, 300), x.dtype, format.compress_tensors(x, draw))
        grad = format.grad_weight(store, x.new_empty(5000, 70))
    assert grad.shape == (70, 300)
    for made, expected in zip(store.buffers, format.empty_tensors(x, *x.shape), strict=True):
        assert (made.shape, made.dtype) == (expected.shape, expected.dtype)
    names = [made.kernel.__name__ for made in launches]
    assert names.count("_encode") == (kind in BITS)
    assert "_decode" not in names
