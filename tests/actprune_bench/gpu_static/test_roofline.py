"""The roofline model: bytes and FLOP counted by hand, and what holds for every size."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actprune import FORMATS, parse
from actprune_bench.gpu_static.roofline import (
    DEVICES,
    OPS,
    Device,
    bound,
    fewest_rows,
    find_device,
)
from actprune_common.errors import InputError

SPECS = ("bsr:block=1x64", "bsr:block=32x32", "bsr:block=3x5", "coo", "csr", "dense")
SCOPES = ("column", "row", "global")
# one byte and one FLOP a second in each unit, told apart by their powers of ten
H200 = DEVICES[2]
UNIT = Device("unit", 1.0, 1e3, 1e2, 1e1, 1.0, 1e-1)

rows_and_features = st.integers(1, 200)
sparsities = st.floats(0, 0.999)


@pytest.fixture
def tf32() -> Iterator[None]:
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")


def made(spec: str, sparsity: float, scope: str = "column") -> str:
    if spec == "dense":
        return spec
    return f"{spec}{',' if ':' in spec else ':'}sparsity={sparsity},scope={scope}"


def counted(op: str, spec: str, dtype: torch.dtype = torch.float16) -> tuple[int, int]:
    """Bytes and FLOP of X (8, 6) and dY (8, 10)."""
    found = bound(UNIT, op, spec, 8, 6, 10, dtype)
    return found.bytes, found.flop


def test_compress_counted_by_hand() -> None:
    # X: 48 elements of 2 bytes, read. 2x3 blocks: 4 rows x 2 columns of blocks, 1 of 4 stays in
    # each column: 2 blocks of 6 elements (24 bytes), 2 block rows and 3 pointers of a byte each.
    assert counted("compress", "bsr:block=2x3,sparsity=0.75") == (96 + 24 + 2 + 3, 2 * 48)
    # csr: 2 of 8 in each of 6 columns: 12 values of 2 bytes, 12 rows and 7 pointers of a byte
    assert counted("compress", "csr:sparsity=0.75") == (96 + 24 + 12 + 7, 2 * 48)
    # coo: a row and a column for each
    assert counted("compress", "coo:sparsity=0.75") == (96 + 24 + 12 + 12, 2 * 48)
    # a copy
    assert counted("compress", "dense") == (96 + 96, 0)


def test_grad_weight_counted_by_hand() -> None:
    # 29 bytes of buffers, 2 rows of dY (both blocks may lie in the same) of 10 x 2 bytes, dW of
    # 10 x 6 x 2 bytes; each of 12 stored elements meets 10 outputs in a multiply and an add
    assert counted("grad_weight", "bsr:block=2x3,sparsity=0.75") == (29 + 40 + 120, 2 * 12 * 10)
    # one block of four rows keeps one of its two: every row of dY is needed
    by_row = "bsr:block=2x3,sparsity=0.75,scope=row"
    assert counted("grad_weight", by_row) == (48 + 4 + 3 + 160 + 120, 2 * 24 * 10)
    assert counted("grad_weight", "dense") == (96 + 160 + 120, 2 * 8 * 6 * 10)
    assert counted("grad_weight", "dense", torch.float32) == (2 * 376, 960)


def test_counted_rows_of_dy_take_the_place_of_the_fewest() -> None:
    found = bound(
        UNIT, "grad_weight", "bsr:block=2x3,sparsity=0.75", 8, 6, 10, torch.half, touched_rows=4
    )
    assert found.bytes == 29 + 80 + 120


def test_to_dense_counted_by_hand() -> None:
    assert counted("to_dense", "bsr:block=2x3,sparsity=0.75") == (29 + 96, 0)


def test_linear_is_the_sum_of_its_parts() -> None:
    # output and input gradient: X, dY and W each once, 960 FLOP; dense keeps X, so it copies none
    product, flop = 96 + 160 + 120, 960
    assert counted("linear", "dense") == (3 * product, 3 * flop)
    pruned = "bsr:block=2x3,sparsity=0.75"
    assert counted("linear", pruned) == (2 * product + 125 + 189, 2 * flop + 96 + 240)
    parts = [bound(H200, op, pruned, 8, 6, 10, torch.half) for op in ("compress", "grad_weight")]
    products = 2 * product / H200.bytes_per_s
    expected = products + sum(part.seconds for part in parts)
    assert bound(H200, "linear", pruned, 8, 6, 10, torch.half).seconds == pytest.approx(expected)


def test_the_ragged_last_block_of_rows_is_short() -> None:
    assert fewest_rows(parse("bsr:block=4x4,sparsity=0.9"), rows=9, features=8) == 1
    assert fewest_rows(parse("bsr:block=4x4,sparsity=0"), rows=9, features=8) == 9
    # global: 3 of 6 blocks, of which a row of blocks holds 2
    assert fewest_rows(parse("bsr:block=4x4,sparsity=0.5,scope=global"), rows=12, features=8) == 8


def test_time_is_the_longer_of_both_and_says_which() -> None:
    # 376 bytes in 376 s; 960 FLOP: 0.96 s in half precision, 960 s in plain fp32
    found = bound(UNIT, "grad_weight", "dense", 8, 6, 10, torch.float16)
    assert (found.seconds, found.limit) == (376, "memory")
    found = bound(UNIT, "grad_weight", "dense", 8, 6, 10, torch.float32)
    assert (found.seconds, found.limit) == (960, "compute")
    found = bound(UNIT, "grad_weight", "dense", 8, 6, 10, torch.float64)
    assert (found.seconds, found.limit) == (4 * 376, "memory")


def test_single_elements_use_no_tensor_cores() -> None:
    found = bound(UNIT, "grad_weight", "csr:sparsity=0", 8, 6, 10, torch.float16)
    assert (found.flop, found.seconds, found.limit) == (960, 960, "compute")


@pytest.mark.usefixtures("tf32")
def test_fp32_is_tf32_where_torch_multiplies_so() -> None:
    found = bound(UNIT, "grad_weight", "dense", 8, 6, 10, torch.float32)
    assert (found.seconds, found.limit) == (752, "memory")


def test_the_issue_s_limit_of_ten_times() -> None:
    """90 % sparsity: a tenth of the FLOP of dense."""
    sizes = (25088, 768, 3072, torch.bfloat16)
    dense = bound(H200, "grad_weight", "dense", *sizes)
    ours = bound(H200, "grad_weight", "bsr:block=1x64,sparsity=0.9", *sizes)
    assert dense.limit == "compute"
    assert dense.flop / ours.flop == pytest.approx(10, rel=1e-3)
    # dense: 118 GFLOP at 989 TFLOP/s
    assert dense.seconds == pytest.approx(119.7e-6, rel=1e-3)


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_a_device_is_found_by_its_whole_name(device: Device) -> None:
    assert find_device(device.name) is device
    assert device.half > device.tf32 > device.plain_fp32 >= device.plain_fp64 > 0


@pytest.mark.parametrize(
    "name",
    ["NVIDIA GH200 480GB", "NVIDIA H100 PCIe", "NVIDIA H200 NVL", "NVIDIA H200 MIG 1g.18gb", ""],
)
def test_other_cards_are_unknown(name: str) -> None:
    assert find_device(name) is None


H200_REACHED = replace(H200, bytes_per_s=4.3e12, half=790e12)  # by good kernels, elsewhere


def test_what_was_reached_lies_below_the_peaks() -> None:
    assert H200_REACHED.bytes_per_s < H200.bytes_per_s
    assert H200_REACHED.half < H200.half


@given(
    op=st.sampled_from(OPS),
    spec=st.sampled_from(SPECS[:-1]),
    scope=st.sampled_from(SCOPES),
    rows=rows_and_features,
    features=rows_and_features,
    two=st.tuples(sparsities, sparsities).map(sorted),
)
def test_more_sparsity_never_raises_the_bound(
    op: str, spec: str, scope: str, rows: int, features: int, two: list[float]
) -> None:
    denser, sparser = (
        bound(H200, op, made(spec, s, scope), rows, features, 32, torch.bfloat16) for s in two
    )
    assert sparser.bytes <= denser.bytes
    assert sparser.flop <= denser.flop
    assert sparser.seconds <= denser.seconds


@given(
    op=st.sampled_from(OPS),
    spec=st.sampled_from(SPECS),
    scope=st.sampled_from(SCOPES),
    sparsity=sparsities,
    sizes=st.tuples(rows_and_features, rows_and_features, rows_and_features),
)
def test_laws_of_every_bound(
    op: str, spec: str, scope: str, sparsity: float, sizes: tuple[int, int, int]
) -> None:
    chosen = made(spec, sparsity, scope)
    found = bound(H200, op, chosen, *sizes, torch.float16)
    rows, features, out_features = sizes
    dense = bound(H200, op, "dense", *sizes, torch.float16)
    assert found.seconds >= found.bytes / H200.bytes_per_s * (1 - 1e-12)
    assert found.limit in ("memory", "compute")
    # a wider type moves more; a slower device takes longer
    assert bound(H200, op, chosen, *sizes, torch.float32).bytes > found.bytes
    assert bound(H200_REACHED, op, chosen, *sizes, torch.float16).seconds >= found.seconds
    # more outputs never cost less
    more = bound(H200, op, chosen, rows, features, out_features + 1, torch.float16)
    assert more.seconds >= found.seconds
    if op == "grad_weight":
        assert found.flop <= dense.flop
        assert 1 <= fewest_rows(parse(chosen), rows, features) <= rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"op": "prune"}, "op: expected one of compress, grad_weight, to_dense, linear, got 'pru"),
        (
            {"spec": "ell"},
            f"spec: expected a format of {', '.join(FORMATS)}, got 'ell'",
        ),
        ({"rows": 0}, "rows: expected 1 or more, got 0"),
        ({"out_features": -1}, "out_features: expected 1 or more, got -1"),
        ({"dtype": torch.int8}, "dtype: expected one of torch.float32, torch.float64, torch.flo"),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    given_: dict[str, object] = {
        "op": "compress",
        "spec": "dense",
        "rows": 4,
        "features": 4,
        "out_features": 4,
        "dtype": torch.float32,
    }
    with pytest.raises(InputError) as caught:
        bound(H200, **(given_ | change))  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)
