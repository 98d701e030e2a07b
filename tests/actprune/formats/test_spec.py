"""Specs: text to a format and back."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actprune import FORMATS, InputError, parse
from actprune.formats.bsr import Bsr

sparsities = st.floats(0, 1, exclude_max=True, allow_nan=False)
options = st.fixed_dictionaries(
    {"sparsity": sparsities},
    optional={
        "scope": st.sampled_from(["global", "column", "row"]),
        "select": st.sampled_from(["topk", "priority"]),
        "seed": st.integers(0, 2**31),
        "backend": st.sampled_from(["auto", "naive", "cpu"]),
    },
)


@given(name=st.sampled_from(["coo", "csr"]), chosen=options)
def test_spec_round_trips(name: str, chosen: dict[str, object]) -> None:
    format = FORMATS[name](**chosen)
    assert parse(format.spec) == format
    assert parse(parse(format.spec).spec).spec == format.spec


@given(
    chosen=options,
    block=st.tuples(st.integers(1, 128), st.integers(1, 128)),
    norm=st.sampled_from(["l2", "l1", "max"]),
)
def test_bsr_spec_round_trips(chosen: dict[str, object], block: tuple[int, int], norm: str) -> None:
    format = Bsr(block=block, norm=norm, **chosen)  # type: ignore[arg-type]
    assert parse(format.spec) == format


def test_canonical_form() -> None:
    assert parse("dense").spec == "dense"
    assert parse(" bsr:sparsity=0.90, block=32 ").spec == "bsr:block=32x32,sparsity=0.9"
    assert parse("coo").spec == "coo:sparsity=0.9"
    spec = "bsr:block=1x32,sparsity=0.9,scope=row,select=priority,seed=3"
    assert parse(spec).spec == spec
    assert parse(parse("csr")) == parse("csr")


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_values(name: str) -> None:
    format = parse(name)
    assert pickle.loads(pickle.dumps(format)) == format
    assert hash(format) == hash(parse(name))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ell", f"spec: expected a format of {', '.join(FORMATS)}, got 'ell'"),
        ("", f"spec: expected a format of {', '.join(FORMATS)}, got ''"),
        ("bsr:", "spec: expected option=value after 'bsr:', got nothing"),
        ("bsr:block", "spec: expected option=value, got 'block' in 'bsr:block'"),
        (
            "coo:block=32",
            "spec: coo takes the options sparsity, scope, select, seed, backend; "
            "got 'block' in 'coo:block=32'",
        ),
        ("dense:sparsity=0.5", "spec: dense takes the options none; got 'sparsity' in 'dense:spa"),
        ("csr:seed=1,seed=2", "spec: option 'seed' is given twice in 'csr:seed=1,seed=2'"),
        ("bsr:sparsity=1.2", "sparsity: expected 0 <= s < 1, got 1.2"),
        ("bsr:sparsity=1", "sparsity: expected 0 <= s < 1, got 1"),
        ("bsr:sparsity=nan", "sparsity: expected 0 <= s < 1, got nan"),
        ("bsr:sparsity=most", "sparsity: expected a number, got 'most'"),
        ("csr:seed=1.5", "seed: expected a whole number, got '1.5'"),
        ("csr:seed=-1", "seed: expected 0 or more, got -1"),
        ("bsr:block=0x32", "block: expected 1x1 to 128x128, got 0x32"),
        ("bsr:block=129", "block: expected 1x1 to 128x128, got 129x129"),
        ("bsr:block=1x2x3", "block: expected a size such as 32 or 1x32, got '1x2x3'"),
        ("bsr:scope=all", "scope: expected one of global, column, row, got 'all'"),
        ("bsr:select=best", "select: expected one of topk, priority, got 'best'"),
        ("bsr:norm=l3", "norm: expected one of l2, l1, max, got 'l3'"),
        (
            "bsr:backend=cuda",
            "backend: expected one of auto, naive, cpu, triton, cusparse, got 'cuda'",
        ),
    ],
)
def test_bad_specs_say_what_was_expected(spec: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        parse(spec)
    assert str(raised.value).startswith(message)


def test_a_spec_is_text() -> None:
    with pytest.raises(InputError, match=r"spec: expected text such as 'bsr:sparsity=0\.9', got 3"):
        parse(3)  # type: ignore[arg-type]
