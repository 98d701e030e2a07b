"""What is each baseline's own: what stays, bytes, errors. The shared laws: test_formats.py."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actprune import InputError, convert, parse
from actprune_bench.measure.kernels import compress_error

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(size=sizes, sparsity=st.floats(0, 0.99))
def test_topk_keeps_the_largest_of_each_row(size: tuple[int, int], sparsity: float) -> None:
    x = torch.randn(size, generator=torch.Generator().manual_seed(size[0]))
    kept = parse(f"topk:sparsity={sparsity}").compress(x).to_dense()
    csr = parse(f"csr:sparsity={sparsity},scope=row").compress(x).to_dense()
    assert torch.equal(kept, csr)


@given(size=sizes, sparsity=st.floats(0, 0.99), scope=st.sampled_from(["column", "row", "global"]))
def test_bitmap_keeps_what_csr_keeps(size: tuple[int, int], sparsity: float, scope: str) -> None:
    x = torch.randn(size, generator=torch.Generator().manual_seed(size[0]))
    options = f"sparsity={sparsity},scope={scope}"
    store = parse(f"bitmap:{options}").compress(x)
    csr = parse(f"csr:{options}").compress(x)
    assert torch.equal(store.to_dense(), csr.to_dense())
    assert store.nbytes == 4 * csr.nnz + size[1] * -(-size[0] // 8)


def test_rows_keeps_whole_rows_by_their_norm() -> None:
    x = torch.randn(10, 6) * torch.arange(1, 11)[:, None]
    kept = parse("rows:sparsity=0.7,select=topk").compress(x).to_dense()
    largest = x.norm(dim=1).topk(3).indices
    expected = torch.zeros_like(x)
    expected[largest] = x[largest]
    assert torch.equal(kept, expected)


@given(size=sizes, text=st.sampled_from(["1:2", "2:4", "3:8", "5:16"]))
def test_nm_keeps_the_largest_of_each_group(size: tuple[int, int], text: str) -> None:
    n, m = map(int, text.split(":"))
    x = torch.randn(size, generator=torch.Generator().manual_seed(size[1]))
    kept = parse(f"nm:{text}").compress(x).to_dense()
    for start in range(0, size[1], m):
        group, after = x[:, start : start + m], kept[:, start : start + m]
        count = min(n, group.shape[1])
        assert bool(((after != 0).sum(1) == count).all())
        largest = group.abs().topk(count, dim=1).values
        assert torch.equal(after.abs().sort(1, descending=True).values[:, :count], largest)
        assert torch.equal(after[after != 0], group[after != 0])


def test_of_equal_magnitudes_the_lower_index_stays() -> None:
    x = torch.ones(4, 8)
    assert parse("nm:2:4").compress(x).to_dense()[0].tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    assert parse("topk:sparsity=0.75").compress(x).to_dense()[0].tolist() == [1, 1] + [0] * 6
    rows = parse("rows:sparsity=0.5,select=topk").compress(x).to_dense()
    assert rows.sum(1).tolist() == [8, 8, 0, 0]


def test_bytes() -> None:
    x = torch.randn(512, 256)
    expected = {
        "nm:2:4": 0.5 + 0.5 / 16,  # half of the values, 2 bits of 32 for each
        "nm:1:2": 0.5 + 0.5 / 32,
        "quant:bits=4": (32 + 3) / 256,
        "quant:bits=8,group=128": (128 + 3) / 512,
        "quant:bits=2,group=32": (8 + 3) / 128,
        "bitmap:sparsity=0.75": 0.25 + 1 / 32,
        "topk:sparsity=0.75": 0.25 * 1.5,
        "rows:sparsity=0.75": 0.25 * (1 + 2 / 1024),
    }
    for spec, share in expected.items():
        assert parse(spec).compress(x).nbytes == share * x.nbytes, spec


@pytest.mark.parametrize("spec", ["quant:bits=2,group=5", "quant:bits=8", "rows:sparsity=0.6"])
def test_they_are_unbiased(spec: str) -> None:
    """Every entry's mean within a bound that 1 in 10^6 fair tests breaks."""
    x = torch.randn(9, 7, dtype=torch.float64)
    format = parse(spec)
    draws = torch.stack(
        [format.compress(x, torch.tensor([0, 0, i])).to_dense() for i in range(3000)]
    )
    spread = draws.std(0) / len(draws) ** 0.5
    varies = spread > 1e-9
    error = (draws.mean(0) - x).abs()
    assert bool((error[varies] < 6.5 * spread[varies] + 1e-5).all())  # and 2^-17 of a level
    assert torch.allclose(draws.mean(0)[~varies], x[~varies])
    assert int(varies.sum()) > 30
    # What the entries' own noise hides, their sum shows: that of a sample's norms hardly varies.
    whole = (draws * x / x.norm(dim=1, keepdim=True)).sum((1, 2))
    bias = float(whole.mean() / x.norm(dim=1).sum()) - 1
    assert abs(bias) < 0.01
    assert abs(bias) < 6.5 * float(whole.std() / x.norm(dim=1).sum()) / len(draws) ** 0.5 + 1e-5


@pytest.mark.parametrize(
    "spec", ["bitmap:sparsity=0.5", "topk:sparsity=0.5", "nm:2:4", "rows:sparsity=0.5,select=topk"]
)
def test_nan_and_inf_are_kept(spec: str) -> None:
    x = torch.rand(20, 20) + 1
    x[3, 4], x[11, 7], x[19, 19] = -torch.nan, torch.inf, -torch.inf
    kept = parse(spec).compress(x).to_dense()
    assert torch.isnan(kept[3, 4])
    assert kept[11, 7] == torch.inf
    assert kept[19, 19] == -torch.inf
    assert int((~kept.isfinite()).sum()) == 3


def test_quant_spoils_the_group_of_a_nan_and_no_other() -> None:
    x = torch.rand(4, 32)
    x[1, 3], x[3, 20] = torch.nan, torch.inf
    bad = ~parse("quant:bits=4,group=8").compress(x).to_dense().isfinite().view(4, 4, 8)
    assert bool(bad[1, 0].all())
    assert bool(bad[3, 2, 4])
    assert int(bad.any(2).sum()) == 2


def test_importance_moves_the_selection() -> None:
    x, importance = torch.ones(8, 4), torch.tensor([1.0] * 4 + [9.0] * 4)
    kept = parse("rows:sparsity=0.5,select=topk").compress(x, None, importance).to_dense()
    assert kept.sum(1).tolist() == [0] * 4 + [4] * 4
    kept = parse("bitmap:sparsity=0.5").compress(x, None, importance).to_dense()
    assert kept.sum(1).tolist() == [0] * 4 + [4] * 4


@pytest.mark.parametrize("spec", ["quant:bits=4", "bitmap", "topk", "rows", "nm:2:4"])
def test_a_layer_keeps_them(spec: str) -> None:
    layer = convert(torch.nn.Linear(32, 8), spec)
    x = torch.randn(64, 32)
    layer(x).square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.isfinite().all()
    store = parse(spec).compress(x)
    assert compress_error(store, x) == 0
    wrong = type(store)(
        store.format, store.shape, store.dtype, (store.buffers[0] + 1, *store.buffers[1:])
    )
    assert compress_error(wrong, x) > 1e-3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("quant:bits=3", "bits: expected one of 8, 4, 2, got 3"),
        ("quant:bits=4,group=0", "group: expected 1 to 65536 values, got 0"),
        ("quant:sparsity=0.5", "quant takes the options bits, group, seed; got 'sparsity'"),
        ("topk:scope=column", "scope: expected one of row, got 'column'"),
        ("rows:scope=row", "scope: expected one of column, got 'row'"),
        ("bitmap:backend=triton", "backend: expected one of auto, naive, got 'triton'"),
        ("nm:4:2", "nm: expected N:M with M of 2, 4, 8, 16 and N below, got 4:2"),
        ("nm:2:5", "nm: expected N:M with M of 2, 4, 8, 16 and N below, got 2:5"),
        ("nm:half", "nm: expected N:M such as 2:4, got 'half'"),
        ("nm:2:4,n=1", "spec: option 'n' is given twice in 'nm:2:4,n=1'"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(spec)


def test_specs_read_back() -> None:
    for spec in ("quant:bits=4", "quant:bits=2,group=32", "nm:2:4", "topk:sparsity=0.5"):
        assert parse(spec).spec == spec
    assert parse("nm").spec == "nm:2:4"
    assert parse("rows").spec == "rows:sparsity=0.9"
