"""What runs tests/gpu gets past tests that end their process, and counts what it did not reach."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(folder: Path, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    path = folder / "test_made.py"
    path.write_text(f"import os, time\n\n{tests}")
    words = [
        sys.executable,
        "-m",
        "benchmarks.scripts.gpu_tests",
        "--out",
        str(folder / "out"),
        *options,
    ]
    return subprocess.run(
        [*words, str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def cases(folder: Path) -> list[tuple[str, bool]]:
    """(name, passed), by name."""
    found = ET.parse(folder / "out/tests.xml").getroot().findall("testsuite/testcase")
    return sorted(
        (case.get("name", "").partition("::")[2] or case.get("name", ""), len(case) == 0)
        for case in found
    )


@pytest.mark.parametrize("processes", [1, 5])
def test_every_test_runs_once_whatever_the_number_of_processes(
    tmp_path: Path, processes: int
) -> None:
    tests = "".join(f"def test_{name}(): pass\n" for name in "abcd")
    done = run(tmp_path, tests, f"--processes={processes}")
    assert (done.returncode, done.stdout) == (0, "4 tests: 0 failed, 0 skipped\n")
    assert cases(tmp_path) == [(f"test_{name}", True) for name in "abcd"]


def test_a_process_that_ends_is_one_failure_and_the_rest_run(tmp_path: Path) -> None:
    tests = """import pytest
def test_a(): pass
def test_b(): assert 1 == 2
def test_c(): pytest.skip("why")
def test_d(): os._exit(3)
def test_e(): assert 3 == 4
def test_f(): pass
"""
    done = run(tmp_path, tests, "--processes=1")
    assert done.returncode == 1
    *failed, last = done.stdout.splitlines()
    assert [re.sub(r"FAILED .*::", "", line) for line in failed] == [
        "test_b - assert 1 == 2",  # from the journal: its process ended later
        "test_d - its process ended with 3",
        "test_e - assert 3 == 4",
    ]
    assert last == "6 tests: 3 failed, 1 skipped"
    assert cases(tmp_path) == [(f"test_{name}", name in "af") for name in "abcdef"]


def test_what_the_time_limit_stops_fails_and_so_does_what_it_leaves_out(tmp_path: Path) -> None:
    tests = "def test_a(): time.sleep(600)\ndef test_b(): pass\n"
    done = run(tmp_path, tests, "--processes=1", "--limit-s=8")
    assert done.returncode == 1
    assert "::test_a - its process was stopped by the time limit\n" in done.stdout
    assert "FAILED share 0/1 - 1 tests not reached\n" in done.stdout


def test_a_test_that_hangs_is_one_failure_and_the_rest_run(tmp_path: Path) -> None:
    """With what it started: that would hold the output open."""
    tests = """import subprocess
def test_a():
    subprocess.run(["sleep", "600"])
def test_b(): pass
"""
    done = run(tmp_path, tests, "--processes=1", "--test-s=3")
    *failed, last = done.stdout.splitlines()
    assert [re.sub(r"FAILED .*::", "", line) for line in failed] == [
        "test_a - its process was stopped by the time limit"
    ]
    assert last == "2 tests: 1 failed, 0 skipped"


def test_a_file_that_cannot_be_imported_is_one_failure_and_the_others_run(tmp_path: Path) -> None:
    broken = tmp_path / "test_broken.py"
    broken.write_text("import no_such_package\n")
    done = run(tmp_path, "def test_a(): pass\ndef test_b(): pass\n", "--processes=2", str(broken))
    failed, _ = done.stdout.splitlines()
    assert failed.startswith("ERROR")
    assert "No module named 'no_such_package'" in (tmp_path / "out/tests.txt").read_text()
    assert {name for name, passed in cases(tmp_path) if passed} == {"test_a", "test_b"}


def test_no_tests_at_all_is_a_failure(tmp_path: Path) -> None:
    done = run(tmp_path, "", "--processes=2")
    assert (done.returncode, done.stdout) == (1, "0 tests: 0 failed, 0 skipped\n")
