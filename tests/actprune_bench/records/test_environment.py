"""What a result says of where it comes from."""

import pytest
import torch

from actprune_bench.records.environment import allocator, environment


def test_the_environment_says_where_a_result_comes_from() -> None:
    torch.set_num_threads(2)
    found = environment("actprune compare --out x")
    assert found["command"] == "actprune compare --out x"
    assert str(found["date"]).endswith("+00:00")
    assert found["threads"] == 2
    assert len(str(found["fingerprint"])) == 12
    assert environment("other")["fingerprint"] == found["fingerprint"]


def test_the_allocators_settings_are_part_of_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    assert allocator({"PATH": "/bin", "MALLOC": "no"}) is None
    several = {"LD_PRELOAD": "libjemalloc.so", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    expected = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1 LD_PRELOAD=libjemalloc.so"
    assert allocator(several) == expected
    monkeypatch.setenv("MALLOC_TOP_PAD_", "64")
    assert "MALLOC_TOP_PAD_=64" in str(environment("x")["allocator"])
