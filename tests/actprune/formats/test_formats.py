"""The laws of the common interface, over every format, option, dtype and odd size."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actprune import FORMATS, Compressed, InputError, parse
from actprune_bench.measure.tolerance import TOLERANCE, relative_error
from actprune_kernels.quantization import KINDS
from actprune_kernels.sizes import keep_count

PRUNING = ["coo", "csr", "bsr"]
DTYPES = list(TOLERANCE)
SCOPES = ["column", "row", "global"]
SPECS = [
    "dense",
    "coo:sparsity=0.7",
    "csr:sparsity=0.7",
    "bsr:block=1x32,sparsity=0.7",
    "bsr:block=32,sparsity=0.7",
    "bsr:block=5x3,sparsity=0.7",
    "bsr:block=1x32,sparsity=0.7,values=int4",
    "bsr:block=5x3,sparsity=0.7,values=int2",
    "csr:sparsity=0.7,values=int8",
    "quant:bits=4",
    "codes:bits=4",
    "codes:bits=8,group=64",
    "quant:bits=2,group=7",
    "bitmap:sparsity=0.7",
    "topk:sparsity=0.7",
    "rows:sparsity=0.7",
    "nm:2:4",
]


@st.composite
def specs(draw: st.DrawFn, sparsity: float | None = None, *, coded: bool = True) -> str:
    lossy = ("quant", "nm", "codes") if sparsity is not None else ()
    name = draw(st.sampled_from([name for name in FORMATS if name not in lossy]))
    if name == "dense":
        return name
    if name == "quant":
        bits, group = draw(st.sampled_from([8, 4, 2])), draw(st.sampled_from([1, 7, 64]))
        return f"quant:bits={bits},group={group}"
    if name == "codes":
        bits, group = draw(st.sampled_from([8, 4, 2])), draw(st.sampled_from([32, 72, 128]))
        return f"codes:bits={bits},group={group}"
    if name == "nm":
        return f"nm:{draw(st.sampled_from(['1:2', '2:4', '3:8', '1:16', '15:16']))}"
    s = draw(st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.999])) if sparsity is None else sparsity
    options = [f"sparsity={s}"]
    if name not in ("topk", "rows"):
        options.append(f"scope={draw(st.sampled_from(SCOPES))}")
    options.append(f"select={draw(st.sampled_from(['topk', 'priority']))}")
    if name in ("bsr", "csr") and coded:
        options.append(f"values={draw(st.sampled_from(['same', *KINDS]))}")
    if name == "bsr":
        height, width = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
        options.append(f"block={height}x{width}")
        options.append(f"norm={draw(st.sampled_from(['l2', 'l1', 'max']))}")
    return f"{name}:{','.join(options)}"


def _same(spec: str) -> str:
    """The spec with its values as they are."""
    return re.sub(",values=[a-z0-9]+", "", spec)


sizes = st.tuples(st.integers(0, 70), st.integers(1, 70), st.integers(1, 20))
dtypes = st.sampled_from(DTYPES)


def random_pair(size: tuple[int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    rows, features, out_features = size
    generator = torch.Generator().manual_seed(rows * 10007 + features)
    x = torch.randn(rows, features, generator=generator).to(dtype)
    return x, torch.randn(rows, out_features, generator=generator).to(dtype)


@given(spec=specs(), size=sizes, dtype=dtypes)
def test_grad_weight_is_the_product_with_what_is_kept(
    spec: str, size: tuple[int, int, int], dtype: torch.dtype
) -> None:
    x, dy = random_pair(size, dtype)
    store = parse(spec).compress(x)
    got = store.grad_weight(dy)
    expected = dy.double().t() @ store.to_dense().double()
    assert got.dtype == dtype
    assert got.shape == (size[2], size[1])
    assert got.is_contiguous()
    # Rounding is relative to the terms of the sum, not to a sum that may cancel.
    scale = (dy.double().abs().t() @ store.to_dense().double().abs()).norm()
    assert (got.double() - expected).norm() <= TOLERANCE[dtype] * scale


@given(spec=specs(sparsity=0.0, coded=False), size=sizes, dtype=dtypes)
def test_at_sparsity_zero_nothing_is_lost(
    spec: str, size: tuple[int, int, int], dtype: torch.dtype
) -> None:
    x, dy = random_pair(size, dtype)
    store = parse(spec).compress(x)
    assert torch.equal(store.to_dense(), x)
    dense = parse("dense").compress(x).grad_weight(dy)
    scale = (dy.double().abs().t() @ x.double().abs()).norm()
    assert (store.grad_weight(dy).double() - dense.double()).norm() <= 2 * TOLERANCE[dtype] * scale


@given(spec=specs(), size=sizes, dtype=dtypes)
def test_a_store_describes_itself(
    spec: str, size: tuple[int, int, int], dtype: torch.dtype
) -> None:
    x, _ = random_pair(size, dtype)
    store = parse(spec).compress(x)
    assert store.shape == tuple(x.shape)
    assert store.dtype == dtype
    assert store.device == x.device
    coded = spec.startswith(("quant", "codes"))
    assert store.nnz == (x.numel() if coded else parse(_same(spec)).compress(x).buffers[0].numel())
    assert store.nbytes == sum(b.numel() * b.element_size() for b in store.buffers)
    for buffer in store.buffers:  # nothing larger is kept alive behind a view
        assert buffer.untyped_storage().nbytes() == buffer.nbytes
    for buffer, empty in zip(store.buffers, store.format.empty_tensors(x, *x.shape), strict=True):
        assert buffer.shape == empty.shape
        assert buffer.dtype == empty.dtype


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("dense", "values"),
        ("coo", "values rows columns"),
        ("csr", "values rows colptr"),
        ("csr:values=fp8", "codes scales rows colptr"),
        ("bsr", "values block_rows colptr"),
        ("bsr:values=bf16", "values block_rows colptr"),
        ("bsr:values=int4", "codes scales zeros block_rows colptr"),
        ("quant", "codes scales zeros"),
        ("bitmap", "values bits"),
        ("topk", "values columns"),
        ("rows", "values index"),
        ("nm:2:4", "values places"),
    ],
)
def test_what_is_kept_has_names(spec: str, names: str) -> None:
    store = parse(spec).compress(torch.randn(40, 50))
    assert list(store.tensors) == names.split()
    assert tuple(store.tensors.values()) == store.buffers


@given(spec=specs(), size=sizes, dtype=dtypes)
def test_the_same_draw_gives_the_same_bits(
    spec: str, size: tuple[int, int, int], dtype: torch.dtype
) -> None:
    x, dy = random_pair(size, dtype)
    draw = torch.tensor([1, 2, 3])
    first, again = (parse(spec).compress(x, draw) for _ in range(2))
    assert all(map(torch.equal, first.buffers, again.buffers))
    assert torch.equal(first.grad_weight(dy), again.grad_weight(dy))


@given(spec=specs(), size=sizes)
def test_memory_layout_does_not_matter(spec: str, size: tuple[int, int, int]) -> None:
    x, dy = random_pair(size, torch.float32)
    strided = torch.randn(x.shape[1] * 2, x.shape[0] + 3).t()[: x.shape[0], ::2].copy_(x)
    store, other = parse(spec).compress(x), parse(spec).compress(strided)
    assert all(map(torch.equal, store.buffers, other.buffers))
    column_major = dy.t().contiguous().t()
    assert torch.allclose(store.grad_weight(column_major), store.grad_weight(dy), atol=1e-5)


@given(
    name=st.sampled_from(["coo", "csr"]),
    scope=st.sampled_from(SCOPES),
    size=sizes,
    sparsity=st.floats(0, 0.99),
)
def test_top_k_keeps_the_largest_elements_of_each_group(
    name: str, scope: str, size: tuple[int, int, int], sparsity: float
) -> None:
    x, _ = random_pair(size, torch.float32)
    kept = parse(f"{name}:sparsity={sparsity},scope={scope}").compress(x).to_dense()
    groups = {"column": x.t(), "row": x, "global": x.reshape(1, -1)}[scope]
    kept = {"column": kept.t(), "row": kept, "global": kept.reshape(1, -1)}[scope]
    for before, after in zip(groups, kept, strict=True):
        count = keep_count(len(before), sparsity)
        assert int((after != 0).sum()) == count
        largest = before.abs().sort(descending=True).values[:count]
        assert torch.equal(after.abs().sort(descending=True).values[:count], largest)
        assert torch.equal(after[after != 0], before[after != 0])


@given(
    block=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    norm=st.sampled_from(["l2", "l1", "max"]),
    size=sizes,
)
def test_top_k_keeps_the_largest_blocks_of_each_column(
    block: tuple[int, int], norm: str, size: tuple[int, int, int]
) -> None:
    (bm, bn), (rows, features, _) = block, size
    x, _ = random_pair(size, torch.float64)
    kept = parse(f"bsr:block={bm}x{bn},sparsity=0.6,norm={norm}").compress(x).to_dense()
    order = {"l2": 2.0, "l1": 1.0, "max": torch.inf}[norm]
    for left in range(0, features, bn):
        norms, chosen = [], []
        for top in range(0, rows, bm):
            piece = slice(top, top + bm), slice(left, left + bn)
            norms.append(float(torch.linalg.vector_norm(x[piece], order)))
            chosen.append(bool(kept[piece].any()))
            assert torch.equal(kept[piece], x[piece] if chosen[-1] else x[piece] * 0)
        assert sum(chosen) == keep_count(len(norms), 0.6)
        inside = [norm for norm, c in zip(norms, chosen, strict=True) if c]
        outside = [norm for norm, c in zip(norms, chosen, strict=True) if not c]
        assert min(inside, default=0) >= max(outside, default=0)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", PRUNING)
def test_of_equal_magnitudes_the_lower_index_stays(name: str, scope: str) -> None:
    block = "block=2x2," if name == "bsr" else ""
    kept = parse(f"{name}:{block}sparsity=0.75,scope={scope}").compress(torch.ones(8, 8)).to_dense()
    expected = torch.zeros(8, 8)
    match scope:
        case "column":
            expected[:2] = 1
        case "row":
            expected[:, :2] = 1
        case "global":  # in storage order, column after column of blocks
            expected[:, :2] = 1
    assert torch.equal(kept, expected)


@pytest.mark.parametrize("select", ["topk", "priority"])
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("spec", ["coo", "csr", "bsr:block=1x4", "bsr:block=3x5,norm=max"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_inf_are_kept(dtype: torch.dtype, spec: str, scope: str, select: str) -> None:
    x = torch.rand(30, 20).to(dtype) + 1
    for position, value in (((3, 4), -torch.nan), ((20, 11), torch.inf), ((29, 19), -torch.inf)):
        x[position] = value
    options = f"sparsity=0.8,scope={scope},select={select}"
    kept = parse(f"{spec}{',' if ':' in spec else ':'}{options}").compress(x).to_dense()
    assert torch.isnan(kept[3, 4])
    assert kept[20, 11] == torch.inf
    assert kept[29, 19] == -torch.inf
    assert int((~kept.isfinite()).sum()) == 3


@pytest.mark.parametrize("select", ["topk", "priority"])
@pytest.mark.parametrize("name", PRUNING)
def test_nan_ranks_above_inf_when_not_all_fit(name: str, select: str) -> None:
    x = torch.ones(10, 1)
    x[2:5], x[7] = torch.inf, torch.nan
    block = "block=1x1," if name == "bsr" else ""
    kept = parse(f"{name}:{block}sparsity=0.9,select={select}").compress(x).to_dense()
    assert kept[7].isnan()
    assert int((kept != 0).sum()) == 1


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("x", [torch.zeros(40, 40), torch.zeros(0, 7), torch.zeros(5, 0)])
def test_all_zero_and_empty_activations(spec: str, x: Tensor) -> None:
    store = parse(spec).compress(x)
    assert torch.equal(store.to_dense(), x)
    assert torch.equal(store.grad_weight(torch.ones(len(x), 3)), torch.zeros(3, x.shape[1]))


@pytest.mark.parametrize("spec", SPECS)
def test_a_store_is_no_view_of_the_activation(spec: str) -> None:
    x = torch.randn(40, 40)
    store = parse(spec).compress(x)
    before = store.to_dense()
    x.fill_(7)
    assert torch.equal(store.to_dense(), before)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("rows", "index"), [(255, 1), (256, 2), (32767, 2), (32768, 4)])
def test_index_arrays_are_as_small_as_the_size_allows(spec: str, rows: int, index: int) -> None:
    store = parse(spec.replace("block=32", "block=1x32")).compress(torch.randn(rows, 3))
    if spec.startswith("rows"):
        assert store.tensors["index"].element_size() == index
    elif spec.startswith(("coo", "csr", "bsr:block=1x", "bsr:block=32")):
        name = "block_rows" if spec.startswith("bsr") else "rows"
        assert store.tensors[name].element_size() == index


def test_a_ninety_percent_bsr_store_is_a_tenth_of_dense() -> None:
    x = torch.randn(6272, 384)
    for block in ("32x32", "1x32", "1x64"):
        store = parse(f"bsr:block={block},sparsity=0.9").compress(x)
        assert store.nbytes / x.nbytes <= 0.105


@pytest.mark.parametrize("spec", SPECS)
def test_wrong_arguments_are_named(spec: str) -> None:
    format = parse(spec)
    with pytest.raises(
        InputError, match=r"activation: expected shape \(rows, features\), got \(2, "
    ):
        format.compress(torch.zeros(2, 3, 4))
    with pytest.raises(InputError, match=r"activation: expected dtype .*, got torch\.int64"):
        format.compress(torch.zeros(2, 3, dtype=torch.int64))
    store: Compressed = format.compress(torch.zeros(4, 3))
    with pytest.raises(InputError, match=r"grad_output: expected shape \(4, out_features\), got"):
        store.grad_weight(torch.zeros(5, 2))
    with pytest.raises(InputError, match=r"expected dtype torch\.float32, got torch\.float64"):
        store.grad_weight(torch.zeros(4, 2, dtype=torch.float64))
    with pytest.raises(InputError, match="grad_output: expected device cpu, got meta"):
        store.grad_weight(torch.zeros(4, 2, device="meta"))


def _draws(spec: str, x: Tensor, count: int) -> Tensor:
    format = parse(spec)
    return torch.stack(
        [format.compress(x, torch.tensor([0, 0, i])).to_dense() for i in range(count)]
    )


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["coo", "csr", "bsr:block=1x4", "bsr:block=3x2"])
def test_priority_sampling_is_unbiased(name: str, scope: str) -> None:
    """E[to_dense()] = X: every entry's mean within a bound that 1 in 10^6 fair tests breaks."""
    x = torch.randn(12, 8, dtype=torch.float64) * torch.logspace(-1, 1, 12)[:, None]
    options = f"sparsity=0.7,scope={scope},select=priority"
    draws = _draws(f"{name}{',' if ':' in name else ':'}{options}", x, 3000)
    error = (draws.mean(0) - x) / (draws.std(0) / len(draws) ** 0.5)
    varies = draws.std(0) > 1e-12
    assert torch.allclose(draws.mean(0)[~varies], x[~varies])
    # Over all entries at once: the sum of squares of z-scores, and the largest of them (a rarely
    # kept entry is skewed, so its z-score has a heavier tail than a normal one).
    assert float(error[varies].abs().max()) < 6.5
    assert float(error[varies].square().mean()) < 2
    keeps = (draws != 0).double().mean(0)
    assert float(keeps.min()) < 0.5  # it does prune
    # Top-k on the same input is biased by far more than the bound allows.
    biased = parse(f"{name}{',' if ':' in name else ':'}sparsity=0.7,scope={scope}").compress(x)
    bias = (biased.to_dense() - x)[varies] / (draws.std(0)[varies] / len(draws) ** 0.5)
    assert float(bias.abs().max()) > 6.5


@pytest.mark.parametrize("spec", ["csr", "coo", "bsr:block=1x4", "bsr:block=3x2"])
def test_importance_says_what_is_selected_and_leaves_it_unbiased(spec: str) -> None:
    x = torch.randn(12, 8, dtype=torch.float64)
    importance = torch.logspace(-1, 1, 12)
    options = f"{spec}{',' if ':' in spec else ':'}sparsity=0.5"
    priority = parse(f"{options},select=priority")
    draws = torch.stack(
        [priority.compress(x, torch.tensor([0, 0, i]), importance).to_dense() for i in range(3000)]
    )
    error = (draws.mean(0) - x) / (draws.std(0) / len(draws) ** 0.5).clamp(min=1e-12)
    varies = draws.std(0) > 1e-12
    assert torch.allclose(draws.mean(0)[~varies], x[~varies])
    assert float(error[varies].abs().max()) < 6.5
    kept = (draws != 0).double().mean((0, 2))
    assert float(kept[:3].max()) < float(kept[-3:].min())
    # the largest of magnitude times importance: the heavy half, where magnitudes are alike
    even = parse(options).compress(torch.ones(12, 8), None, importance).to_dense()
    assert not even[:6].any()
    assert bool((even[6:] == 1).all())
    ones = torch.ones(12)
    assert torch.equal(priority.compress(x, None, ones).to_dense(), priority.compress(x).to_dense())


def test_importance_of_another_shape() -> None:
    with pytest.raises(InputError, match=r"sample_importance: expected shape \(4,\), got \(3,\)"):
        parse("csr").compress(torch.ones(4, 2), None, torch.ones(3))


def test_other_draws_select_otherwise() -> None:
    x = torch.randn(64, 64)
    format = parse("bsr:block=1x8,sparsity=0.5,select=priority")
    kept = [
        format.compress(x, torch.tensor(draw)).to_dense()
        for draw in ([0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0])
    ]
    assert all(not torch.equal(kept[0], other) for other in kept[1:])
    assert torch.equal(format.compress(x).to_dense(), kept[0])
    assert not torch.equal(parse(f"{format.spec},seed=1").compress(x).to_dense(), kept[0])


def test_relative_error() -> None:
    one, two = torch.ones(3), torch.full((3,), 2.0)
    assert relative_error(two, one) == pytest.approx(1)
    assert relative_error(torch.zeros(3), torch.zeros(3)) == 0
    assert relative_error(one, torch.zeros(3)) == float("inf")
