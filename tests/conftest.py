"""What all tests share: fixed seeds and threads, poisoned memory, and why a test was not run."""

import os
import shutil
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import deterministic

# torch 2.9 warns of how itself reads its settings and its checkpoints: tests that start processes
# and let nothing on stderr pass are not about that.
if torch.__version__ < "2.10":
    os.environ["PYTHONWARNINGS"] = (
        "ignore:Please use the new API settings:UserWarning,ignore:TypedStorage is:UserWarning"
    )

# What tests start as processes of their own has one thread, as they have: see fixed_torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background job ignores Ctrl-C, and so would every process that a test starts to stop it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Read when Triton is imported: where there is no GPU, its kernels run in the interpreter.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).parents[1]


def _mend_interpreter() -> None:
    """Let loops over loaded bounds run in the interpreter of Triton before 3.7.

    It calls int() on an array of one element, which NumPy refuses from 2.4 on. A GPU's kernels are
    not concerned: there is no NumPy in what is compiled.
    """
    try:
        import triton
        from triton.runtime import interpreter
    except ModuleNotFoundError:
        return
    if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 7):
        return
    theirs = interpreter._patch_lang_tensor

    def patch(tensor: type, *scope: object) -> None:
        theirs(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())  # type: ignore[attr-defined]

    interpreter._patch_lang_tensor = patch


_mend_interpreter()

try:
    from hypothesis import HealthCheck, settings
except ModuleNotFoundError:  # tests/gpu runs without it
    pass
else:
    # The same examples every time and no deadline: a red test is red again, on a slow machine too.
    # `pytest --hypothesis-profile=search` looks for new ones.
    settings.register_profile(
        "repeat",
        derandomize=True,
        deadline=None,
        max_examples=25,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.register_profile(
        "search", settings.get_profile("repeat"), derandomize=False, max_examples=500
    )
    settings.load_profile("repeat")


@pytest.fixture(autouse=True)
def fixed_torch() -> None:
    """Every test starts from seed 0 with one thread, whatever ran before it.

    At the sizes of tests a second thread only spins, which on busy cores takes ten times as long.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def poison_empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Memory that torch allocates uninitialised holds NaN (integers: the largest), in C++ too.

    A kernel that forgets to write an element then shows it. torch fills only in its deterministic
    mode, so an operator without a deterministic form warns.
    """
    was = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    monkeypatch.setattr(deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(was, warn_only=warn_only)


def _chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium on the PATH (Debian: apt-get install chromium)")
    return path


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium; the test is skipped where there is none."""
    return _chromium()


@pytest.fixture(scope="session")
def fashion_mnist() -> Path:
    """The folder of the four full Fashion-MNIST files; the test is skipped where there is none."""
    places: list[str | Path | None] = [
        os.environ.get("ACTPRUNE_FASHION_MNIST"),
        ROOT.parent / "shared/data/fashion-mnist",
        "/usr/share/datasets/fashion-mnist",  # Debian's dataset-fashion-mnist
    ]
    for place in places:
        if place and (Path(place) / "train-images-idx3-ubyte.gz").is_file():
            return Path(place)
    pytest.skip("no full Fashion-MNIST (name its folder in ACTPRUNE_FASHION_MNIST)")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser"):
        _chromium()
    # with DEVICE=cpu, which benchmarks/gpu_check.sh takes, they run what a CPU can run of them
    on_cpu = os.environ.get("DEVICE") == "cpu"
    if item.get_closest_marker("gpu") and not (on_cpu or torch.cuda.is_available()):
        pytest.skip("no CUDA device")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files of long tests come first, so that two processes end at about the same time."""
    items.sort(key=lambda item: "actprune_bench" not in item.location[0])


# pytest-xdist's workers select the tests, and pytest's count of what they leave out stays there.
SLOW: list[str] = []
"""The files of the slow tests that were left out, one entry a test."""


def pytest_deselected(items: list[pytest.Item]) -> None:
    SLOW.extend(item.location[0] for item in items if item.get_closest_marker("slow"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["slow"] = SLOW


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Every worker selects alike: the last one's list stands for all."""
    SLOW[:] = getattr(node, "workeroutput", {}).get("slow", SLOW)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line per reason for which tests did not run, with how many and in which files."""
    files: defaultdict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", []):
        # A skip's longrepr is (path, line, reason); an expected failure's is something else.
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        files[reason.removeprefix("Skipped: ")].append(report.nodeid.partition("::")[0])
    if SLOW:
        files["slow, left to the nightly (run with -m slow)"] = SLOW
    if not files:
        return
    terminalreporter.section("not run here, and why")
    for reason, where in files.items():
        terminalreporter.line(f"{len(where)} x {reason}  [{', '.join(sorted(set(where)))}]")
