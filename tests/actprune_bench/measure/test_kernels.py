"""The kernel measurements: records, checks and bad arguments. No assertion on a time."""

import pytest
import torch
from torch import Tensor

from actprune import Compressed, InputError, parse
from actprune.formats.bsr import Bsr
from actprune.formats.dense import Dense
from actprune_bench.measure import kernels
from actprune_bench.measure.kernels import Shape, compress_error, measure_kernels
from actprune_bench.measure.tolerance import TOLERANCE, tolerance
from actprune_common.results import OPS

SHAPE = Shape("fc", 96, 64, 32)
SPECS = ["coo:sparsity=0.9", "bsr:block=1x32,sparsity=0.9,select=priority"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs rotate through little: times are not asserted."""
    monkeypatch.setattr(kernels, "ROTATION_BYTES", 2**18)


def test_a_record_per_shape_op_and_spec() -> None:
    lines: list[str] = []
    records = list(
        measure_kernels(SPECS, [SHAPE, Shape("t", 37, 19, 11)], samples=3, progress=lines.append)
    )
    assert len(records) == 2 * len(OPS) * 3
    assert lines == [f"{name} {op}" for name in ("fc", "t") for op in OPS]
    for record in records:
        times, median, ratio = record.samples_ms, record.median_ms, record.ratio_to_dense
        assert isinstance(times, list)
        assert isinstance(median, float)
        assert isinstance(ratio, float)
        assert len(times) == 3
        assert median == sorted(times)[1]
        assert ratio > 0
        if record.spec == "dense":
            assert ratio == 1
        assert record.ok is True
        assert record.error is None
        assert record.backend == ("torch" if record.spec == "dense" else "cpu")
        assert f"--format '{record.spec}'" in str(record.command)
    store = parse(SPECS[1]).compress(torch.randn(96, 64))
    assert records[2].nbytes == store.nbytes
    assert records[2].nbytes_ratio == store.nbytes / (96 * 64 * 4)


def test_a_wrong_kernel_gets_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Bsr.grad_weight

    def wrong(self: Bsr, compressed: Compressed, grad: Tensor) -> Tensor:
        result = right(self, compressed, grad)
        result[0, 0] += 1
        return result

    monkeypatch.setattr(Bsr, "grad_weight", wrong)
    records = list(measure_kernels(SPECS, [SHAPE], samples=2))
    for record in records:
        if str(record.spec).startswith("bsr"):
            assert record.ok is False
            assert str(record.error).startswith("grad_weight: relative error 0.0")
            assert record.samples_ms == []
            assert record.median_ms is record.ratio_to_dense is None
        else:
            assert record.ok is True


def test_a_wrong_selection_is_found() -> None:
    x = torch.randn(64, 64)
    store = parse("bsr:block=1x8,sparsity=0.5").compress(x)
    assert compress_error(store, x) == 0
    assert compress_error(store, -x) == float("inf")  # not the activation's own entries
    smaller = x * torch.linspace(0, 1, 64)[:, None]
    other = parse("bsr:block=1x8,sparsity=0.5").compress(smaller)
    kept = other.to_dense()
    values = torch.stack([x[:, 8 * c : 8 * c + 8][:32] for c in range(8)]).view(-1, 1, 8)
    first_rows = type(store)(
        store.format, store.shape, store.dtype, (values, store.buffers[1] * 0, store.buffers[2])
    )
    assert compress_error(first_rows, x) > 1e-3
    assert kept.shape == x.shape


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="samples: expected 1 or more, got 0"):
        list(measure_kernels(SPECS, [SHAPE], samples=0))
    with pytest.raises(
        InputError, match="ops: expected some of compress, grad_weight, linear, got x"
    ):
        list(measure_kernels(SPECS, [SHAPE], ops=["x"]))
    with pytest.raises(InputError, match=r"dtype: expected one of .*, got torch\.int32"):
        list(measure_kernels(SPECS, [SHAPE], dtype=torch.int32))
    with pytest.raises(InputError, match="rows: expected 1 or more, got 0"):
        Shape("fc", 0, 1, 1)


def test_without_a_right_dense_nothing_has_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dense, "grad_weight", lambda self, compressed, grad: grad.t() @ grad * 0)
    shape = Shape("square", 40, 32, 32)
    for record in measure_kernels(["csr:sparsity=0.5"], [shape], samples=1):
        assert record.ok is False
        assert record.ratio_to_dense is None
        assert "grad_weight: relative error 1 is over the tolerance" in str(record.error)


def test_the_tolerance_grows_with_the_length_of_a_sum() -> None:
    assert tolerance(torch.float32, 4096) == TOLERANCE[torch.float32]
    assert tolerance(torch.float32, 4 * 4096) == 2 * TOLERANCE[torch.float32]
    assert tolerance(torch.bfloat16, 4 * 4096) == TOLERANCE[torch.bfloat16]
