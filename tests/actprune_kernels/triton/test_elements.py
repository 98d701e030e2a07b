"""COO and CSR in Triton's interpreter, against the definitions, on poisoned memory.

Products in bf16 are left to a GPU, with those of blocks: see test_blocks.
"""

import ctypes
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from actprune import Compressed, parse
from actprune_bench.measure.tolerance import TOLERANCE, relative_error
from actprune_kernels import cusparse, launch
from actprune_kernels.backends import interpreted
from actprune_kernels.coo import cusparse as coo_cusparse
from actprune_kernels.coo import naive as coo_naive
from actprune_kernels.csr import cusparse as csr_cusparse
from actprune_kernels.csr import naive as csr_naive
from actprune_kernels.csr import triton as csr_triton
from actprune_kernels.pointers import colptr_of
from actprune_kernels.selection import Selection
from actprune_kernels.sizes import SCOPES
from tests.sampling import sampled

pytestmark = [
    pytest.mark.skipif(not interpreted(), reason="Triton runs on a GPU here: see tests/gpu"),
    pytest.mark.usefixtures("poison_empty"),
]
FORMATS = ["coo", "csr"]
SHAPES = [(1, 1), (1, 19), (23, 1), (37, 20)]


def spec(name: str, sparsity: float, scope: str, backend: str, more: str = "") -> str:
    return f"{name}:sparsity={sparsity},scope={scope},backend={backend}{more}"


@pytest.mark.parametrize(
    ("shape", "name", "dtype"),
    sampled(SHAPES, FORMATS, [torch.float32, torch.float16, torch.bfloat16]),
)
def test_stores_are_those_of_the_definition(
    name: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    x = torch.randint(-4, 5, shape).to(dtype)  # many ties
    for scope, sparsity in [("column", 0), ("column", 0.5), ("row", 0.7), ("global", 0.999)]:
        ours = parse(spec(name, sparsity, scope, "triton")).compress(x)
        theirs = parse(spec(name, sparsity, scope, "naive")).compress(x)
        for got, expected in zip(ours.buffers, theirs.buffers, strict=True):
            assert got.dtype == expected.dtype
            assert torch.equal(got, expected)
        assert torch.equal(ours.to_dense(), theirs.to_dense())


@pytest.mark.parametrize(("ours", "theirs"), [(csr_cusparse, csr_naive), (coo_cusparse, coo_naive)])
def test_stores_in_float64_which_only_cusparse_multiplies(
    ours: ModuleType, theirs: ModuleType
) -> None:
    x = torch.randint(-4, 5, (23, 9)).double()
    x[3, 4] += 2.0**-40  # no tie in fp64, one in fp32
    x[7, 2], x[9, 2] = float("nan"), float("inf")
    for scope in SCOPES:
        selection = Selection(0.7, scope)
        store = ours.compress(x, selection)
        for got, expected in zip(store, theirs.compress(x, selection), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
        dense = theirs.to_dense(*store, (23, 9))
        torch.testing.assert_close(ours.to_dense(*store, (23, 9)), dense, equal_nan=True)


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**100])
def test_magnitudes_whose_squares_leave_the_range_keep_their_rank(scale: float) -> None:
    x = torch.randn(30, 12) * scale
    ours = parse(spec("csr", 0.9, "global", "triton")).compress(x)
    theirs = parse(spec("csr", 0.9, "global", "naive")).compress(x)
    assert all(map(torch.equal, ours.buffers, theirs.buffers))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", FORMATS)
def test_nan_and_inf_stay(name: str, scope: str) -> None:
    x = torch.randn(30, 12)
    x[5, 3], x[20, 3] = float("inf"), torch.tensor(-float("nan"))
    ours = parse(spec(name, 0.9, scope, "triton")).compress(x)
    theirs = parse(spec(name, 0.9, scope, "naive")).compress(x)
    for got, expected in zip(ours.buffers, theirs.buffers, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", FORMATS)
def test_products_against_float64(name: str, dtype: torch.dtype) -> None:
    x, dy = torch.randn(50, 21).to(dtype), torch.randn(50, 33).to(dtype)
    x[:, :4] *= 100  # with global scope: columns kept whole, and columns left empty
    for scope in SCOPES:
        for sparsity in (0.0, 0.9):
            store = parse(spec(name, sparsity, scope, "triton")).compress(x)
            expected = dy.double().t() @ store.to_dense().double()
            assert relative_error(store.grad_weight(dy), expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_column_writes_zeros(name: str) -> None:
    x = torch.zeros(40, 20)
    x[:, 3:5] = torch.randn(40, 2) + 5
    store = parse(spec(name, 0.9, "global", "triton")).compress(x)
    grad = store.grad_weight(torch.randn(40, 8))
    assert grad[:, 3:5].all()
    assert not grad[:, :3].any()
    assert not grad[:, 5:].any()


def test_the_longest_column_is_started_first() -> None:
    x = torch.zeros(70, 5)
    x[:, 3], x[::2, 1], x[0, 4] = 3, 2, 1
    store = csr_naive.compress(x, Selection(1 - 106 / x.numel(), "global"))
    assert store[2].diff().tolist() == [0, 35, 0, 70, 1]
    order = csr_triton._longest_first(store[2], 106)
    assert order is not None
    assert order[:3].tolist() == [3, 1, 4]
    dy = torch.randn(70, 6)
    expected = dy.double().t() @ x.double()
    error = relative_error(csr_triton.grad_weight(*store, dy, 5), expected)
    assert error <= TOLERANCE[torch.float32]
    assert csr_triton._longest_first(torch.arange(0, 12, 2), 10) is None  # even: nothing to sort


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", FORMATS)
def test_priority_sampling_repeats_and_scales(name: str, scope: str) -> None:
    x = torch.randn(40, 16)
    format = parse(spec(name, 0.8, scope, "triton", ",select=priority"))
    draw = torch.tensor([1, 2, 3])
    store, twin = format.compress(x, draw), format.compress(x, draw)
    assert all(map(torch.equal, store.buffers, twin.buffers))
    other = format.compress(x, draw + 1)
    assert not torch.equal(store.to_dense(), other.to_dense())
    kept = store.to_dense()
    ratio = (kept / x)[kept != 0]
    assert ratio.min() >= 1 - 1e-6
    assert ratio.max() > 1.2


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_activation_is_an_empty_store(name: str, shape: tuple[int, int]) -> None:
    for scope in SCOPES:
        store = parse(spec(name, 0.5, scope, "triton")).compress(torch.empty(shape))
        assert (store.nnz, store.to_dense().shape) == (0, shape)
        grad = store.grad_weight(torch.ones(shape[0], 3))
        assert torch.equal(grad, torch.zeros(3, shape[1]))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("select", ["topk", "priority"])
@pytest.mark.parametrize("name", FORMATS)
def test_nothing_waits_for_the_data(name: str, select: str, scope: str) -> None:
    """On meta tensors there is no data to wait for; the shapes are those of the fake tensors."""
    format = parse(spec(name, 0.9, scope, "triton", f",select={select}"))
    x = torch.empty(5000, 300, device="meta", dtype=torch.float16)
    with launch.record() as launches:
        store = Compressed(format, (5000, 300), x.dtype, format.compress_tensors(x, None))
        grad = format.grad_weight(store, x.new_empty(5000, 70))
        dense = format.to_dense(store)
    assert (grad.shape, dense.shape) == ((70, 300), (5000, 300))
    for made, expected in zip(store.buffers, format.empty_tensors(x, *x.shape), strict=True):
        assert (made.shape, made.dtype) == (expected.shape, expected.dtype)
    assert {made.kernel.__name__ for made in launches} >= {"_grad_weight", "_gather", "_scatter"}


def test_pointers_of_columns_with_gaps() -> None:
    for dtype in (torch.uint8, torch.int16, torch.int32):
        columns = torch.tensor([1, 1, 4], dtype=dtype)
        assert colptr_of(columns, 6).tolist() == [0, 0, 2, 2, 2, 3, 3]


@dataclass
class Documented:
    """cuSPARSE's calls as they are documented, over host memory: sizes, orders, leading dimensions.

    It shows that the operands are described rightly; that cuSPARSE itself runs, a GPU must show.
    """

    CUSPARSE_INDEX_32I = 2
    CUSPARSE_INDEX_BASE_ZERO = 0
    CUSPARSE_ORDER_COL = 1
    CUSPARSE_OPERATION_NON_TRANSPOSE = 0
    CUSPARSE_OPERATION_TRANSPOSE = 1
    described: dict[int, Any] = field(default_factory=dict)
    algorithms: list[int] = field(default_factory=list)

    def _name(self, made: Any) -> int:
        self.described[len(self.described) + 1] = made
        return len(self.described)

    def createCsr(self, rows: int, cols: int, nnz: int, *rest: int) -> int:  # noqa: N802
        offsets, columns, values, offset_type, column_type, base, kind = rest
        assert (offset_type, column_type, base) == (2, 2, 0)
        parts = view(values, nnz, kind), view(columns, nnz, "i4"), view(offsets, rows + 1, "i4")
        return self._name(scipy.sparse.csr_matrix(parts, shape=(rows, cols)))

    def createCoo(self, rows: int, cols: int, nnz: int, *rest: int) -> int:  # noqa: N802
        row, column, values, index_type, base, kind = rest
        assert (index_type, base) == (2, 0)
        place = view(row, nnz, "i4"), view(column, nnz, "i4")
        assert (np.diff(place[0]) >= 0).all()  # sorted by row, as cuSPARSE demands
        return self._name(scipy.sparse.coo_matrix((view(values, nnz, kind), place), (rows, cols)))

    def createDnMat(  # noqa: N802
        self, rows: int, cols: int, leading: int, values: int, kind: int, order: int
    ) -> int:
        assert (order, leading) == (self.CUSPARSE_ORDER_COL, rows)
        return self._name(view(values, rows * cols, kind).reshape(rows, cols, order="F"))

    def spMM_bufferSize(self, *call: int) -> int:  # noqa: N802
        assert len(call) == 10
        return 0

    def spMM(self, handle: int, *call: int) -> None:  # noqa: N802
        op_a, op_b, one, sparse, dense, zero, result, kind, algorithm, workspace = call
        assert (op_a, op_b, handle) == (0, 1, 7)
        assert (view(one, 1, kind)[0], view(zero, 1, kind)[0]) == (1, 0)
        assert workspace
        self.algorithms.append(algorithm)
        self.described[result][...] = self.described[sparse] @ self.described[dense].T

    def destroySpMat(self, name: int) -> None:  # noqa: N802
        del self.described[name]

    destroyDnMat = destroySpMat  # noqa: N815


def view(address: int, count: int, kind: int | str) -> NDArray[Any]:
    dtype = np.dtype(["f4", "f8"][kind] if isinstance(kind, int) else kind)
    memory: Any = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
    return np.asarray(memoryview(memory)).view(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operands_of_cusparse_are_described_as_documented(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Documented()

    @contextmanager
    def handle(_: torch.device) -> Any:
        yield 7

    monkeypatch.setattr(cusparse, "_library", lambda: library)
    monkeypatch.setattr(cusparse, "_cuda_types", lambda: (0, 1))
    monkeypatch.setattr(cusparse, "_handle", handle)
    x, dy = torch.randn(40, 12, dtype=dtype), torch.randn(5, 40, dtype=dtype).t()
    x[:, 3] = 0

    def check(grad: Tensor, dense: Tensor) -> None:
        assert grad.is_contiguous()
        assert relative_error(grad, dy.double().t() @ dense.double()) <= TOLERANCE[dtype]

    for scope in SCOPES:
        csr = parse(spec("csr", 0.7, scope, "naive")).compress(x)
        values, rows, colptr = csr.buffers
        check(csr_cusparse.grad_weight(values, rows, colptr, dy, 12), csr.to_dense())
        coo = parse(spec("coo", 0.7, scope, "naive")).compress(x)
        values, rows, columns = coo.buffers
        check(coo_cusparse.grad_weight(values, rows, columns, dy, 12), coo.to_dense())
    assert library.algorithms == [12, 2] * 3
    assert not library.described  # every descriptor was freed


def test_indices_beyond_32_bits_name_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cusparse, "_library", Documented)
    values = torch.empty(2**31, device="meta")
    rows, columns = values.short(), values.short()
    colptr, dy = torch.empty(9, dtype=torch.int64, device="meta"), values.new_empty(300, 4)
    text = "expected at most 2147483647 rows, features and kept elements for cuSPARSE, "
    text += "got 300, 8 and 2147483648; use backend=triton, or naive for float64"
    with pytest.raises(ValueError, match=f"activation: {text}"):
        csr_cusparse.grad_weight(values, rows, colptr, dy, 8)
    with pytest.raises(ValueError, match=f"activation: {text}"):
        coo_cusparse.grad_weight(values, rows, columns, dy, 8)


def test_every_descriptor_is_freed_where_cusparse_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = Documented()

    @contextmanager
    def refused(_: torch.device) -> Any:
        raise ValueError("refused")
        yield

    monkeypatch.setattr(cusparse, "_library", lambda: library)
    monkeypatch.setattr(cusparse, "_cuda_types", lambda: (0, 1))
    monkeypatch.setattr(cusparse, "_handle", refused)
    x, dy = torch.randn(40, 12), torch.randn(40, 5)
    with pytest.raises(ValueError, match="refused"):
        csr_cusparse.grad_weight(*csr_naive.compress(x, Selection(0.7, "column")), dy, 12)
    assert not library.described


def test_cupy_takes_a_stream_by_the_protocol_where_it_can() -> None:
    """ExternalStream warns from CuPy 14 on; before that there is nothing else."""

    def from_external(stream: Any) -> Any:
        return "protocol", stream.__cuda_stream__()

    new = SimpleNamespace(Stream=SimpleNamespace(from_external=from_external))
    old = SimpleNamespace(Stream=SimpleNamespace(), ExternalStream=lambda at: ("external", at))
    assert cusparse.on_stream(new, 7) == ("protocol", (0, 7))
    assert cusparse.on_stream(old, 7) == ("external", 7)
