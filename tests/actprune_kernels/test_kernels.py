"""Every fast kernel against its naive definition, on odd sizes and poisoned memory."""

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actprune import parse
from actprune_kernels import backends
from actprune_kernels.backends import kernels, resolve
from actprune_kernels.quantization import KINDS
from actprune_kernels.selection import cpu, naive, uniforms
from actprune_kernels.sizes import index_dtype, keep_count

SHAPES = [(1, 1), (1, 70), (70, 1), (37, 50), (64, 96), (33, 196), (130, 31)]
SCOPES = ["column", "row", "global"]
SPECS = ["coo", "csr", "bsr:block=1x32", "bsr:block=1x5", "bsr:block=7x1,norm=max", "bsr:block=1x1"]
SPECS += [f"bsr:block=1x32,values={kind}" for kind in KINDS]
SPECS += ["bsr:block=7x1,values=int2", "csr:values=int4"]


def _spec(spec: str, options: str) -> str:
    return f"{spec}{',' if ':' in spec else ':'}{options}"


@pytest.mark.usefixtures("poison_empty")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spec", SPECS)
def test_stores_are_those_of_the_definition(
    spec: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    # Small whole numbers: exact norms in every dtype, and many ties.
    x = torch.randint(-9, 10, shape).to(dtype)
    for scope in SCOPES:
        for sparsity in (0.0, 0.5, 0.999):
            options = f"sparsity={sparsity},scope={scope}"
            fast = parse(_spec(spec, options)).compress(x)
            slow = parse(_spec(spec, f"{options},backend=naive")).compress(x)
            for got, expected in zip(fast.buffers, slow.buffers, strict=True):
                assert got.dtype == expected.dtype
                assert torch.equal(got, expected)
            assert torch.equal(fast.to_dense(), slow.to_dense())


@pytest.mark.usefixtures("poison_empty")
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("block", ["32x32", "3x7", "128x128", "1x64", "64x1"])
def test_products_of_ragged_and_uneven_columns(block: str, scope: str) -> None:
    x = torch.randn(150, 101, dtype=torch.float64)
    x[:, 30:60] *= 100  # with global scope: columns kept whole, and columns left empty
    dy = torch.randn(150, 33, dtype=torch.float64)
    store = parse(f"bsr:block={block},sparsity=0.8,scope={scope}").compress(x)
    expected = dy.t() @ store.to_dense()
    torch.testing.assert_close(store.grad_weight(dy), expected, rtol=1e-12, atol=1e-9)


@pytest.mark.usefixtures("poison_empty")
@pytest.mark.parametrize("name", ["coo", "csr", "bsr"])
def test_an_empty_column_writes_zeros(name: str) -> None:
    x = torch.zeros(64, 96)
    x[:, :32] = torch.randn(64, 32) + 5
    store = parse(f"{name}:sparsity=0.9,scope=global").compress(x)
    grad = store.grad_weight(torch.randn(64, 8))
    assert grad[:, :32].any()
    assert torch.equal(grad[:, 32:], torch.zeros(8, 64))


magnitudes = st.lists(
    st.lists(
        st.sampled_from([0.0, 1.0, 1.0, 2.0, 3.5, float("inf"), float("nan")]),
        min_size=6,
        max_size=6,
    ),
    min_size=1,
    max_size=6,
).map(torch.tensor)


@given(m=magnitudes, scope=st.sampled_from(SCOPES), share=st.floats(0, 1), random=st.booleans())
def test_selection_is_that_of_the_definition(
    m: Tensor, scope: str, share: float, random: bool
) -> None:
    group = {"column": m.shape[1], "row": m.shape[0], "global": m.numel()}[scope]
    keep = keep_count(group, min(share, 0.999))
    draw = torch.tensor([5, 6, 7]) if random else None
    mask, scale = cpu.select(m, keep, scope, draw)
    expected_mask, expected_scale = naive.select(m, keep, scope, draw)
    assert torch.equal(mask, expected_mask)
    assert int(mask.sum()) == keep * (m.numel() // group)
    if scale is None or expected_scale is None:
        assert scale is expected_scale is None
    else:
        assert torch.equal(scale, expected_scale)
        assert bool((scale >= 1).all())


@pytest.mark.parametrize("kernel", [cpu, naive])
def test_the_scale_is_the_first_rank_that_fell_out_over_the_magnitude(kernel: ModuleType) -> None:
    m, draw = torch.rand(5, 20, dtype=torch.float64) + 0.01, torch.tensor([5, 6, 7])
    ranks = m / uniforms(m, draw)
    mask, scale = kernel.select(m, 8, "column", draw)
    expected = []
    for column, rank in zip(m.tolist(), ranks.tolist(), strict=True):
        threshold = sorted(rank)[-9]
        kept = [size for size, r in zip(column, rank, strict=True) if r > threshold]
        expected += [max(1.0, threshold / size) for size in kept]
    assert int(mask.sum()) == len(expected) == 40
    torch.testing.assert_close(scale, torch.tensor(expected, dtype=torch.float64))
    assert max(expected) > 1.5


def test_half_precision_accumulates_in_fp32() -> None:
    """4096 ones: a sum in fp16 or bf16 would stop at 2048 or 256."""
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.ones(4096, 4, dtype=dtype)
        for name in ("coo", "csr", "bsr"):
            for backend in ("cpu", "naive"):
                store = parse(f"{name}:sparsity=0,backend={backend}").compress(x)
                assert torch.equal(
                    store.grad_weight(x[:, :2]), torch.full((2, 4), 4096.0, dtype=dtype)
                )


def test_offsets_beyond_32_bits_are_computed_in_64() -> None:
    """Rows x features passes 2^31: 4.6 GB of bf16 of which only two pages become resident."""
    rows, features = 70_000, 32_768
    index = torch.tensor([0, rows - 1])
    module = import_module("actprune_kernels.bsr.cpu")
    big = torch.empty(rows, features, dtype=torch.bfloat16)
    big[-1, -32:] = 3
    big[0, :32] = 2
    values = module.gather_blocks(big, index, torch.tensor([0, features // 32 - 1]), 1, 32)
    assert torch.equal(values.float()[:, 0, 0], torch.tensor([2.0, 3.0]))
    assert index_dtype(rows * features) == torch.int64


@pytest.mark.parametrize(
    ("n", "sparsity", "expected"),
    [(0, 0.9, 0), (1, 0.9, 1), (10, 0.9, 1), (10, 0.0, 10), (7, 0.5, 4)],
)
def test_keep_count(n: int, sparsity: float, expected: int) -> None:
    assert keep_count(n, sparsity) == expected


def test_backends_are_chosen_by_device_and_dtype_or_name() -> None:
    host, meta = torch.device("cpu"), torch.device("meta")
    assert resolve("bsr", "auto", host, torch.bfloat16) == "cpu"
    assert resolve("bsr", "naive", meta, torch.float32) == "naive"
    assert resolve("bsr", "triton", meta, torch.float32) == "triton"
    chosen = kernels("csr", "auto", host, torch.float32)
    assert chosen.__name__ == "actprune_kernels.csr.cpu"


@pytest.mark.parametrize("folder", ["bsr", "coo", "csr", "quantization", "codes", "gelu"])
def test_the_backends_that_a_folder_lists_are_its_modules(folder: str) -> None:
    package = import_module(f"actprune_kernels.{folder}")
    modules = {path.stem for path in Path(package.__path__[0]).glob("*.py")}
    assert {"__init__", *(backend.name for backend in package.HAS)} == modules


@pytest.mark.parametrize(
    ("folder", "backend", "device", "dtype", "message"),
    [
        ("bsr", "auto", "meta", "float32", "no kernel for device 'meta'; backend=naive runs plain"),
        ("bsr", "cpu", "meta", "float32", "cpu takes tensors on the CPU, got one on meta"),
        ("bsr", "blas", "cpu", "float32", "expected one of auto, naive, cpu, triton, cusparse, go"),
        ("csr", "cusparse", "cpu", "float32", "cusparse takes tensors on CUDA, got one on cpu"),
        ("csr", "cusparse", "meta", "bfloat16", "cusparse takes float32 and float64, got torch.b"),
        ("bsr", "cusparse", "meta", "float32", "bsr has the backends naive, cpu, triton; got 'cu"),
        ("bsr", "triton", "meta", "float64", "got torch.float64; use backend=naive"),
        ("coo", "triton", "meta", "float64", "got torch.float64; use backend=cusparse"),
        ("coo", "cusparse", "meta", "float64", "needs the package cupy: pip install 'actprune[cu"),
        ("bsr", "triton", "meta", "float32", "needs the package triton: pip install 'actprune[cu"),
    ],
)
def test_a_backend_that_cannot_run_says_the_way_out(
    folder: str,
    backend: str,
    device: str,
    dtype: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name in message else name)
    with pytest.raises(ValueError, match=f"^backend: .*{re.escape(message)}"):
        resolve(folder, backend, torch.device(device), getattr(torch, dtype))
