"""What a result says of where it comes from."""

from pathlib import Path

import pytest
import torch

from actprune_bench.records.environment import allocator, driver, environment


def test_the_environment_says_where_a_result_comes_from() -> None:
    torch.set_num_threads(2)
    found = environment("actprune compare --out x")
    assert found["command"] == "actprune compare --out x"
    assert str(found["date"]).endswith("+00:00")
    assert found["threads"] == 2
    assert len(str(found["fingerprint"])) == 12
    assert environment("other")["fingerprint"] == found["fingerprint"]


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:12:35 UTC 2025", "580.65.06"),
        (
            "NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build  (root@localhost)",
            "580.82.07",
        ),
        ("NVIDIA UNIX x86_64 Kernel Module", None),
    ],
)
def test_the_driver_is_the_one_of_the_kernel_module(
    tmp_path: Path, line: str, version: str | None
) -> None:
    file = tmp_path / "version"
    file.write_text(f"NVRM version: {line}\nGCC version:  gcc version 12.3.0 (Ubuntu)\n")
    assert driver(file) == version


def test_without_the_kernel_module_there_is_no_driver(tmp_path: Path) -> None:
    assert driver(tmp_path / "version") is None


def test_the_allocators_settings_are_part_of_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    assert allocator({"PATH": "/bin", "MALLOC": "no"}) is None
    several = {"LD_PRELOAD": "libjemalloc.so", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    expected = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1 LD_PRELOAD=libjemalloc.so"
    assert allocator(several) == expected
    monkeypatch.setenv("MALLOC_TOP_PAD_", "64")
    assert "MALLOC_TOP_PAD_=64" in str(environment("x")["allocator"])
