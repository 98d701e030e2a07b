"""Run tests/gpu in several processes at once, past whatever ends one of them.

``python -m benchmarks.scripts.gpu_tests --out DIR`` needs nothing beyond pytest and what the
tests import.
Most of the time goes into compiling kernels, so every process takes its share of the tests. A test
that loses the GPU's context, ends its process, or takes too long fails; a new process goes on after
it. Writes DIR/tests.txt and DIR/tests.xml (JUnit); exits with 1 where a test failed or was not
reached.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
import traceback
import xml.etree.ElementTree as ET
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Reporting = Generator[None, pytest.TestReport, pytest.TestReport]
LOST = 77
"""Exit status of a process whose GPU context no longer answers."""


# As a pytest plugin (-p benchmarks.scripts.gpu_tests): a share of the tests, and a journal of each
# one, as a process that ends on the way writes no report.


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--share", default="0/1", help="I/N: every N-th test from the I-th on")
    parser.addoption("--skip-first", type=int, default=0, help="so many tests of the share")
    parser.addoption("--journal", type=Path, help="file for the number of tests and what they did")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    part, of = map(int, config.getoption("share").split("/"))
    items[:] = items[part::of][config.getoption("skip_first") :]
    _note(config, str(len(items)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    _note(item.config, f"begun\t{item.nodeid}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Reporting:
    """Note what came of a test: its call, or the setup or teardown that ended it."""
    report = yield
    if report.when == "call" or not report.passed:
        last = str(report.longrepr).splitlines()[-1] if report.failed else ""
        problem = last.removeprefix("E").strip()
        _note(item.config, f"{report.outcome}\t{item.nodeid}\t{problem}")
    return report


def pytest_runtest_teardown() -> None:
    """Without its context every later test would fail: end here."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except RuntimeError as problem:
            pytest.exit(f"the GPU's context is lost: {problem}", returncode=LOST)


def _note(config: pytest.Config, line: str) -> None:
    journal = config.getoption("journal")
    if journal is not None:
        with journal.open("a") as file:
            print(line, file=file)


# As a program: the processes, and what they found.


@dataclass
class Found:
    """What a share of the tests came to."""

    text: str = ""
    suites: list[ET.Element] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """A line for each test that failed, ended its process, or was not reached."""


def run_share(share: str, tests: list[str], limit_s: float, test_s: float, folder: Path) -> Found:
    """Run a share, one process after the other, until its tests or its time are used up."""
    found, done, deadline = Found(), 0, time.monotonic() + limit_s
    while True:
        name = f"{share.replace('/', '-')}-{done}"
        journal, junit = folder / f"{name}.journal", folder / f"{name}.xml"
        options = [f"--share={share}", f"--skip-first={done}", f"--journal={journal}"]
        options += [f"--junitxml={junit}", *tests]
        status, text = _pytest(options, journal, deadline, test_s)
        found.text += text
        none = status == pytest.ExitCode.NO_TESTS_COLLECTED and journal.exists()
        if none or status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            lines = text.splitlines()
            found.failed += [line for line in lines if line.startswith(("FAILED", "ERROR"))]
            found.suites += ET.parse(junit).getroot().findall("testsuite")
            return found
        if not journal.exists():
            return _ended(found, f"share {share}", f"pytest ended with {status}")
        count, *notes = journal.read_text().splitlines()
        names = _recover(found, notes)
        left = int(count) - len(names)
        what = "was stopped by the time limit" if status is None else f"ended with {status}"
        _ended(found, names[-1] if names else f"share {share}", f"its process {what}")
        if time.monotonic() >= deadline or not names:
            return _ended(found, f"share {share}", f"{left} tests not reached") if left else found
        done += len(names)


def _recover(found: Found, notes: list[str]) -> list[str]:
    """Add what the journal of a process that ended holds; the tests that it began."""
    begun, suite = [], ET.Element("testsuite", name="pytest")
    for note in notes:
        outcome, name, *problem = note.split("\t", 2)
        if outcome == "begun":
            begun.append(name)
        elif outcome == "failed":
            _ended(found, name, *problem)
        else:
            case = ET.SubElement(suite, "testcase", name=name)
            if outcome == "skipped":
                ET.SubElement(case, "skipped")
    found.suites.append(suite)
    return begun


def _ended(found: Found, name: str, problem: str) -> Found:
    found.failed.append(f"FAILED {name} - {problem}")
    suite = ET.Element("testsuite", name="pytest", tests="1", errors="1")
    ET.SubElement(ET.SubElement(suite, "testcase", name=name), "error", message=problem)
    found.suites.append(suite)
    return found


def _pytest(
    options: list[str], journal: Path, deadline: float, test_s: float
) -> tuple[int | None, str]:
    """Exit status (None: stopped, as all or one test took too long) and output."""
    # a configuration of its own: the project's names plugins and filters that an image may lack
    command = [sys.executable, "-m", "pytest", "-c", "benchmarks/scripts/gpu_pytest.ini"]
    paths = [".", "impl", "kernels", *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "2",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    process = subprocess.Popen(
        [*command, "--rootdir=.", *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # to stop what its tests started, too
    )
    while True:
        try:
            text, _ = process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            silent_s = time.time() - journal.stat().st_mtime if journal.exists() else 0
            if time.monotonic() < deadline and silent_s < test_s:
                continue
            os.killpg(process.pid, signal.SIGKILL)
            return None, process.communicate()[0]
        return process.returncode, text


def _guarded(share: str, **options: Any) -> Found:
    """run_share, whose own failure is this share's alone."""
    try:
        return run_share(share, **options)
    except Exception:
        text = traceback.format_exc()
        return _ended(Found(text), f"share {share}", text.splitlines()[-1])


def main() -> int:
    """Run the shares at once, write what they found, print what failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder, made if need be")
    parser.add_argument("--limit-s", type=float, default=140, help="processes are stopped then")
    parser.add_argument("--test-s", type=float, default=75, help="a single test is stopped then")
    parser.add_argument("--processes", type=int, default=max(1, min(12, (os.cpu_count() or 1) - 2)))
    parser.add_argument("tests", nargs="*", default=["tests/gpu"], help="as pytest takes them")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    shares = [f"{part}/{given.processes}" for part in range(given.processes)]
    with TemporaryDirectory() as folder, ThreadPoolExecutor(len(shares)) as pool:
        limits = {"limit_s": given.limit_s, "test_s": given.test_s}
        one = partial(_guarded, tests=given.tests, folder=Path(folder), **limits)
        shared = list(pool.map(one, shares))
    suites = ET.Element("testsuites")
    suites.extend(suite for found in shared for suite in found.suites)
    ET.ElementTree(suites).write(given.out / "tests.xml", encoding="utf-8", xml_declaration=True)
    (given.out / "tests.txt").write_text("\n".join(found.text for found in shared))
    # a file that cannot be imported is an error of every share
    failed = list(dict.fromkeys(line for found in shared for line in found.failed))
    cases = suites.findall("testsuite/testcase")
    skipped = suites.findall("testsuite/testcase/skipped")
    print(*failed, sep="\n", end="\n" if failed else "")
    print(f"{len(cases)} tests: {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
