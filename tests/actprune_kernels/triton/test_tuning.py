"""How grad_weight divides its work: the rule, the tables, what tuning tries."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actprune_kernels import tuning
from actprune_kernels.tuning import Plan, by_rule, dump, file_name, load, search_space, shape_class

HALF = torch.bfloat16
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@given(
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    kept_rows=st.integers(1, 10**6),
    out_features=st.integers(1, 5000),
    features=st.integers(1, 5000),
    block=st.tuples(st.integers(1, 128), st.integers(1, 128)),
)
def test_the_rule_has_a_plan_for_every_shape(
    dtype: torch.dtype, kept_rows: int, out_features: int, features: int, block: tuple[int, int]
) -> None:
    plan = by_rule(dtype, kept_rows, out_features, features, block)
    assert tuning.choose(CPU, dtype, kept_rows, out_features, features, block) == plan
    assert 16 <= plan.block_o <= 128
    assert plan.block_k in (16, 32, 64)
    # parts are no shorter than a few steps, so that adding them costs less than it saves
    assert plan.split == 1 or kept_rows // plan.split >= 4 * plan.block_k


def test_few_columns_are_divided_until_a_large_device_is_filled() -> None:
    narrow = by_rule(HALF, 2509, 384, 1536, (1, 64))
    assert (narrow.block_o, narrow.split) == (128, 2)  # 3 x 24 programs, twice
    assert by_rule(HALF, 2509, 3072, 3072, (1, 64)).split == 1  # 24 x 48 programs


def test_the_search_space_is_small_and_holds_what_the_rule_would_take() -> None:
    rule = by_rule(HALF, 2509, 768, 3072, (1, 64))
    tried = list(search_space(rule))
    assert len(tried) <= 54
    assert len(set(tried)) == len(tried)
    assert (rule.block_o, rule.block_k, rule.split) in {
        (plan.block_o, plan.block_k, plan.split) for plan in tried
    }


def test_neighbouring_shapes_share_a_class() -> None:
    key = shape_class(HALF, 2509, 384, 1536, (1, 64))
    assert key == "bfloat16 1x64 4096x512x2048"
    assert key == shape_class(HALF, 2400, 400, 1500, (1, 64))
    assert key != shape_class(HALF, 2509, 384, 1536, (64, 64))


def test_a_table_reads_back(tmp_path: Path) -> None:
    plan = Plan(128, 64, 2, 8, 4)
    name = "NVIDIA H200"
    text = dump(name, {"bfloat16 1x64 4096x512x2048": plan}, {"triton": "3.6.0"})
    assert file_name(name) == "nvidia-h200"
    (tmp_path / "nvidia-h200.yaml").write_text(text)
    assert load(name, tmp_path) == {"bfloat16 1x64 4096x512x2048": plan}
    assert load("another", tmp_path) == {}


@pytest.mark.parametrize("text", ["[", "plans: 3", "plans: {a: {block_o: 1}}", "x: 1", "- 1"])
def test_a_broken_table_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "gpu.yaml").write_text(text)
    load.cache_clear()
    with pytest.raises(ValueError, match=r"gpu.yaml: expected plans by shape class, got "):
        load("gpu", tmp_path)


def test_a_table_decides_where_it_has_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(64, 32, 1, 4, 3)
    key = shape_class(HALF, 200, 64, 96, (1, 32))
    monkeypatch.setattr(tuning, "load", lambda _: {key: plan})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "some GPU")
    same, other = (HALF, 200, 64, 96, (1, 32)), (HALF, 200, 64, 3000, (1, 32))
    assert tuning.choose(CUDA, *same) == plan
    assert tuning.choose(CUDA, *other) == by_rule(*other) != plan
    assert tuning.choose(CPU, *same) == by_rule(*same)
    assert {*asdict(plan)} == {"block_o", "block_k", "split", "num_warps", "num_stages"}
