"""A/B runs end to end, on throw-away repositories of a package in pure Python, without torch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from actprune_bench.records.environment import environment
from actprune_ci.cli import app
from actprune_ci.measure import machine, sequential
from actprune_ci.measure.checkouts import BuildError, checked_out, resolve
from actprune_ci.measure.machine import MachineState
from actprune_ci.measure.pairing import Limits, PairedFigure, close, record
from actprune_ci.model.runs import AbRun, Note, Pairs
from actprune_ci.model.serialise import read_ab
from actprune_ci.readers.asv import key
from actprune_common.errors import InputError

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "tiny"
version = "1"
[tool.hatch.build.targets.wheel]
packages = ["tiny"]
"""
SUITE = """
import tiny

def track_work():
    return tiny.work()

track_work.unit = "bytes"
"""


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ("git", "-C", str(folder), *who, *words), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


class Repository:
    """A repository of the package `tiny`, whose work is a number, and of a suite for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        git(folder.parent, "init", "-q", "-b", "main", folder.name)

    def commit(self, code: str = "", suite: str | None = None, project: str = PYPROJECT) -> str:
        files = {"pyproject.toml": project, "tiny/__init__.py": code}
        if suite is not None:
            files |= {"benchmarks/__init__.py": "", "benchmarks/suite.py": suite}
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
            git(self.folder, "add", name)
        git(self.folder, "commit", "-q", "--allow-empty", "-m", "a change")
        return git(self.folder, "rev-parse", "HEAD")

    def worktrees(self) -> int:
        return len(git(self.folder, "worktree", "list").splitlines())


def work(amount: int) -> str:
    return f"def work():\n    return {amount}\n"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def ab(repository: Repository, base: str, head: str, *more: str) -> tuple[Result, Path]:
    out = repository.folder.parent / "ab.json"
    words = ["ab", base, head, "--repo", str(repository.folder), "--out", str(out), *more]
    return CliRunner().invoke(app(), words), out


def pairs_of(path: Path) -> dict[str, Pairs]:
    return {str(pair.key): pair for pair in read_ab(path).pairs}


def test_a_tracked_figure_is_compared_exactly(repository: Repository) -> None:
    base = repository.commit(work(1000), SUITE)
    head = repository.commit(work(1001))
    done, out = ab(repository, base, head)
    assert done.exit_code == 0, done.output
    run = read_ab(out)
    assert (run.base, run.head) == (base, head)
    (pair,) = run.pairs
    assert pair.key == key("suite.track_work", (), (), "bytes")
    assert (pair.base, pair.head, pair.status) == ((1000, 1000), (1001, 1001), "ok")
    assert "+0.10% in 2 pairs  suite.track_work" in done.output
    assert run.environment_head["python"] == ".".join(map(str, sys.version_info[:3]))
    assert run.environment_head["tiny"] == "1"
    assert repository.worktrees() == 1


def test_heads_suite_measures_both_sides_and_what_one_lacks_is_listed(
    repository: Repository,
) -> None:
    base = repository.commit(work(1), SUITE + "def track_old():\n    return 1\n")
    suite = (
        SUITE
        + """
def track_new():
    return 5

class Api:
    params = [1, "2"]
    param_names = ["n"]
    def setup(self, n):
        if not hasattr(tiny, "later"):
            raise NotImplementedError("no tiny.later")
    def track_later(self, n):
        return tiny.later(n)
    def track_nowhere(self, n):
        raise AssertionError("not reached")
    track_nowhere.skip_params = [(1,), ("2",)]
"""
    )
    head = repository.commit(work(1) + "def later(n):\n    return int(n)\n", suite)
    done, out = ab(repository, base, head)
    assert done.exit_code == 0, done.output
    found = {name: (pair.status, pair.detail) for name, pair in pairs_of(out).items()}
    assert found == {
        "suite.track_work": ("ok", ""),
        "suite.track_new": ("ok", ""),  # base can do it, so it is a pair
        "suite.track_old": ("skipped", "vanished"),
        "suite.Api.track_later(n=1)": ("skipped", "new"),
        "suite.Api.track_later(n='2')": ("skipped", "new"),
        "suite.Api.track_nowhere(n=1)": ("skipped", "not for these parameters"),
        "suite.Api.track_nowhere(n='2')": ("skipped", "not for these parameters"),
    }


def test_what_fails_is_told_with_its_reason_and_the_rest_goes_on(repository: Repository) -> None:
    base = repository.commit(work(1) + "FAILS = False\n", SUITE)
    suite = (
        SUITE
        + """
import os, subprocess, sys, time

def setup():
    print("what a suite prints disturbs nobody")

def track_crash():
    if tiny.FAILS:
        os.kill(os.getpid(), 11)
    return 1

def track_hang():
    if tiny.FAILS:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(1000)"])
    return 1

track_hang.timeout = 1

def track_memory():
    if tiny.FAILS:
        bytearray(1 << 60)
    return 1

def track_exits():
    sys.exit("on both sides")

def track_text():
    return "no number"

def track_nan():
    return float("nan")
"""
    )
    head = repository.commit(work(1) + "FAILS = True\n", suite)
    done, out = ab(repository, base, head)
    assert done.exit_code == 0, done.output
    found = {
        name.removeprefix("suite.track_"): (pair.status, pair.detail, pair.base, pair.head)
        for name, pair in pairs_of(out).items()
    }
    number = "TypeError: expected a finite number, got 'no number'"
    assert found == {
        "work": ("ok", "", (1, 1), (1, 1)),
        "crash": ("failed", "head: its process died of SIGSEGV", (), ()),
        "hang": ("failed", "head: timed out after 1 s", (), ()),
        "memory": ("failed", "head: MemoryError", (), ()),
        "exits": (
            "failed",
            "base: SystemExit: on both sides; head: SystemExit: on both sides",
            (),
            (),
        ),
        "text": ("failed", f"base: {number}; head: {number}", (), ()),
        "nan": ("skipped", "its figure is NaN", (), ()),
    }


def test_nothing_measured_is_exit_code_3(repository: Repository) -> None:
    commit = repository.commit("", "def track_it():\n    raise OSError('no')\n")
    done, out = ab(repository, commit, commit)
    assert done.exit_code == 3
    assert pairs_of(out)["suite.track_it"].status == "failed"


def test_what_does_not_build_is_exit_code_3(repository: Repository) -> None:
    base = repository.commit(work(1), SUITE)
    head = repository.commit(work(1), project=PYPROJECT.replace('version = "1"', ""))
    done, out = ab(repository, base, head)
    assert done.exit_code == 3
    assert f"{head[:12]}: does not build: " in done.output
    assert not out.exists()
    assert repository.worktrees() == 1


def test_times_raw_times_peaks_and_caches(repository: Repository) -> None:
    suite = """
import time

class Kinds:
    def setup_cache(self):
        return {"amount": 1000}
    def setup(self, cache):
        self.numbers = list(range(cache["amount"]))
    def teardown(self, cache):
        del self.numbers
    def time_sum(self, cache):
        sum(self.numbers)
    def peakmem_sum(self, cache):
        sum(self.numbers)
    def track_cached(self, cache):
        return cache["amount"]

def timeraw_pass():
    return "pass", "import this_is_not_there" if False else "x = 1"
"""
    commit = repository.commit(work(1), suite)
    done, out = ab(repository, commit, commit, "--pairs", "2:3")
    assert done.exit_code == 0, done.output
    found = pairs_of(out)
    assert {name: len(pair.base) for name, pair in found.items()} == {
        "suite.Kinds.time_sum": 3,
        "suite.Kinds.peakmem_sum": 3,
        "suite.Kinds.track_cached": 2,
        "suite.timeraw_pass": 3,
    }
    assert found["suite.Kinds.track_cached"].head == (1000, 1000)
    assert all(0 < s < 1 for s in found["suite.Kinds.time_sum"].base)
    assert all(s > 1 << 20 for s in found["suite.Kinds.peakmem_sum"].head)
    metrics = {(p.key.metric, p.key.unit) for p in found.values()}
    assert metrics == {("time", "s"), ("peak_memory", "bytes"), ("cached", "unit")}


def test_a_figure_that_varies_is_measured_until_it_is_clear(repository: Repository) -> None:
    # no two processes give the same figure, which would be taken for one that never varies
    noise = "os.getpid() % 7 + 1e-9 * os.getpid()"
    suite = f"import os, tiny\ndef track_noise():\n    return tiny.work() + {noise}\n"
    base = repository.commit(work(1000), suite)
    head = repository.commit(work(2000))
    done, out = ab(repository, base, head, "--pairs", "4:40")
    assert done.exit_code == 0, done.output
    (pair,) = read_ab(out).pairs
    assert len(pair.base) in sequential.looks(4, 40)[:-1]
    assert min(pair.head) >= 2000


def test_the_pattern_selects_figures_by_name_and_parameters(repository: Repository) -> None:
    suite = "class P:\n    params = ['a', 'b']\n    def track_it(self, p):\n        return 1\n"
    commit = repository.commit(work(1), suite)
    done, out = ab(repository, commit, commit, "--benchmarks", r"param1=b")
    assert done.exit_code == 0, done.output
    assert list(pairs_of(out)) == ["suite.P.track_it(param1=b)"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--benchmarks", "nothing"], "--benchmarks: none of the suite's fits 'nothing'"),
        (["--benchmarks", "("], "--benchmarks: no regular expression: "),
        (["--pairs", "9:3"], "--pairs: expected MIN:MAX with 1 <= MIN <= MAX, got '9:3'"),
        (["--pairs", "many"], "--pairs: expected MIN:MAX with 1 <= MIN <= MAX, got 'many'"),
        (["--smallest", "0"], "--smallest: expected a relative effect above 0, got 0"),
        (["--suite", "none"], "has no folder none"),
    ],
)
def test_bad_options_are_named(repository: Repository, words: list[str], message: str) -> None:
    commit = repository.commit(work(1), SUITE)
    done, out = ab(repository, commit, commit, *words)
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)
    assert not out.exists()
    assert repository.worktrees() == 1


def test_commits_that_are_none_are_named(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(work(1), SUITE)
    with pytest.raises(InputError, match="has no commit nonsense"):
        resolve(repository.folder, "nonsense")
    with pytest.raises(InputError, match=rf"^{repository.folder.parent}: .*not a git repository"):
        resolve(repository.folder.parent, "HEAD")
    with monkeypatch.context() as without:
        without.setenv("PATH", "")
        with pytest.raises(InputError, match="git: cannot be run: No such file"):
            resolve(repository.folder, "HEAD")


def test_a_suite_that_cannot_be_imported_is_a_note(repository: Repository) -> None:
    base = repository.commit(work(1), SUITE)
    git(repository.folder, "rm", "-q", "--cached", "benchmarks/suite.py")
    (repository.folder / "benchmarks/more.py").write_text("from tiny import later\n" + SUITE)
    git(repository.folder, "add", "benchmarks/more.py")
    head = repository.commit(work(1) + "later = 1\n")
    done, out = ab(repository, base, head)
    assert done.exit_code == 3, done.output
    assert {n: p.detail for n, p in pairs_of(out).items()} == {
        "more.track_work": "new",
        "suite.track_work": "vanished",
    }
    (note,) = [n for n in read_ab(out).notes if n.code == "not-imported"]
    assert note.text.startswith(
        "base: benchmarks.more cannot be imported: ImportError: cannot import"
    )


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_leaves_what_it_measured(repository: Repository, name: str) -> None:
    suite = SUITE + "import time\ndef time_long():\n    time.sleep(0.01)\n"
    commit = repository.commit(work(7), suite)
    out = repository.folder.parent / "ab.json"
    words = [sys.executable, "-m", "actprune_ci", "ab", commit, commit, "--out", str(out)]
    process = subprocess.Popen(
        [*words, "--repo", str(repository.folder), "--pairs", "500:500"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(repository.folder.parent)},
    )
    while not out.exists() or len(pairs_of(out)["suite.time_long"].base) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert f"interrupted; what was measured is in {out}" in said
    run = read_ab(out)
    assert run.notes[-1] == Note("interrupted", "interrupted")
    assert pairs_of(out)["suite.track_work"].base == (7, 7)
    assert repository.worktrees() == 1
    assert not list(repository.folder.parent.glob("actprune-*"))


def test_worktrees_go_with_the_checkouts(repository: Repository) -> None:
    commit = repository.commit(work(1), SUITE)
    with checked_out(repository.folder) as checkouts:
        side = checkouts.side(commit)
        assert checkouts.side(commit) is side
        assert (side.site / "tiny/__init__.py").is_file()
        assert repository.worktrees() == 2
    assert repository.worktrees() == 1
    assert not checkouts.folder.exists()


def test_worktrees_go_with_checkouts_that_fail(repository: Repository) -> None:
    commit = repository.commit(work(1), SUITE)
    with (
        pytest.raises(BuildError, match=f"{commit[:12]}: does not build: pip ended with 1"),
        checked_out(repository.folder, "false") as checkouts,
    ):
        checkouts.side(commit)
    assert repository.worktrees() == 1


def test_results_and_ab_runs_name_a_machine_alike() -> None:
    known, mine = environment("x"), machine.facts()
    assert mine["fingerprint"] == known["fingerprint"]
    for name in ("cpu", "cores", "memory_bytes", "platform"):
        assert mine[name] == str(known[name])


def cards(*reasons: str) -> dict[str, object]:
    """What nvidia-smi says of each GPU, as far as it matters here."""
    return {"gpus": tuple({"slowed_by": each} for each in reasons)}


def state(**changes: object) -> MachineState:
    known = {"wall": 0.0, "monotonic": 0.0, "governors": (), "throttled": None}
    return MachineState(**{**known, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "after", "notes"),
    [
        ({}, {"wall": 100.0, "monotonic": 100.4}, []),
        (
            {},
            {"wall": -3500.0, "monotonic": 100.0},
            [Note("clock-jumped", "clock jumped by -3600 s")],
        ),
        ({}, {"governors": ("performance", "performance")}, []),
        (
            {},
            {"governors": ("powersave", "performance")},
            [Note("slow-governor", "frequency governor: performance, powersave")],
        ),
        (
            {"throttled": 3},
            {"throttled": 5},
            [Note("processor-throttled", "the processor was throttled 2 times")],
        ),
        (cards("0x1"), cards("0x1", "0x2", "0x10", "[N/A]"), []),
        (
            cards("0x1", "0x1"),
            cards("0x1"),
            [Note("device-lost", "device lost: nvidia-smi lists 1 of 2 GPUs")],
        ),
        (
            cards("0x1", "0x1"),
            cards("0x1", "0x42"),
            [Note("gpu-throttled", "GPU 1 is slowed down: too hot (hardware) (reasons 0x43)")],
        ),
        (
            cards("0x8", "0x4"),
            cards("0x1", "0x1"),
            [
                Note("gpu-throttled", "GPU 0 is slowed down: hardware slowdown (reasons 0x9)"),
                Note("gpu-power-capped", "GPU 1 is slowed down: power limit (reasons 0x5)"),
            ],
        ),
    ],
)
def test_notes_tell_what_happened(
    before: dict[str, object], after: dict[str, object], notes: list[Note]
) -> None:
    assert machine.notes(state(**before), state(**after)) == notes


@given(st.integers(1, 50), st.integers(0, 200))
def test_looks_are_few_rise_and_end_at_the_most(fewest: int, more: int) -> None:
    looks = sequential.looks(fewest, fewest + more)
    assert looks[0] == fewest if more else looks == [fewest]
    assert looks[-1] == fewest + more
    assert looks == sorted(set(looks))
    assert len(looks) <= 3 + 2 * more**0.5


@given(st.integers(1, 200))
def test_all_looks_together_spend_no_more_than_the_error(last: int) -> None:
    assert sum(sequential.spent(j) for j in range(1, last + 1)) < sequential.ERROR


@pytest.mark.parametrize(
    ("ratio", "noise", "pairs", "clear"),
    [(1.0, 0.001, 12, True), (1.1, 0.01, 12, True), (1.0, 0.1, 12, False), (1.05, 0.1, 12, False)],
)
def test_settled(ratio: float, noise: float, pairs: int, clear: bool) -> None:
    d = np.log(ratio) + noise * np.random.default_rng(1).standard_normal(pairs)
    assert sequential.settled(d, 0.02, 0.01, look=2) is clear


def test_a_rule_that_looks_often_is_rarely_wrong() -> None:
    """Of 1000 comparisons of equal code with heavy tails, looked at until 60 pairs."""
    random, wrong = np.random.default_rng(5), 0
    looks = sequential.looks(8, 60)
    for _ in range(1000):
        d = 0.03 * random.standard_t(3, 60)
        closed = (n for j, n in enumerate(looks, 1) if sequential.settled(d[:n], 0.02, 0.01, j))
        n = next(closed, None)
        wrong += n is not None and abs(np.median(d[:n])) > np.log1p(0.02)
    assert wrong <= 1


@given(st.lists(st.sampled_from(["ok", "failed", "skipped", "absent"]), min_size=2, max_size=2))
def test_a_pair_needs_both_sides(states: list[str]) -> None:
    benchmark = {"kind": "track", "deterministic": False, "name": "track_x"}
    figure = PairedFigure(key("track_x", ()), benchmark, (), base=[1.0], head=[1.0])
    answers = [{"status": s, "detail": "why", "value": 2.0} for s in states]
    record(figure, *answers)
    pairs = figure.pairs()
    if states == ["ok", "ok"]:
        assert (pairs.base, pairs.head, pairs.status) == ((1, 2), (1, 2), "ok")
        return
    assert figure.closed
    assert pairs.status == ("failed" if "failed" in states else "skipped")
    assert pairs.status == "failed" or not (pairs.base or pairs.head)
    if pairs.status == "failed":
        assert bool(pairs.base) == (states[0] != "failed")
        assert bool(pairs.head) == (states[1] != "failed")


def test_a_figure_declared_deterministic_is_measured_once() -> None:
    def figure(declared: bool) -> PairedFigure:
        described = {"kind": "track", "deterministic": declared}
        return PairedFigure(key("track_x", ()), described, (), base=[1.0], head=[2.0])

    figures = [figure(True), figure(False)]
    close(figures, Limits(), Limits().clear)
    assert [f.closed for f in figures] == [True, False]
    figures[1].base.append(1.0)
    figures[1].head.append(2.0)
    close(figures, Limits(), Limits().clear)
    assert all(f.closed for f in figures)


def test_no_time_left_is_told() -> None:
    figure = PairedFigure(key("track_x", ()), {"kind": "track"}, ())
    assert (figure.pairs().status, figure.pairs().detail) == ("skipped", "the time was over")


def test_a_used_up_budget_is_told(repository: Repository) -> None:
    commit = repository.commit(work(1), SUITE)
    done, out = ab(repository, commit, commit, "--budget", "0")
    assert done.exit_code == 3
    assert json.loads(out.read_text("utf-8"))["notes"][-1] == {
        "code": "budget-used-up",
        "text": "budget of 0 s used up: 1 of 1 still open",
    }
    assert isinstance(read_ab(out), AbRun)


PEAKS = """
def allocated(megabytes):
    return [bytearray(50_000) for _ in range(20 * megabytes)]

gone = allocated(300)
last = bytearray(50_000)
del gone  # 300 MB that are free below what is still in use: no benchmark may live on them

def peakmem_large():
    allocated(150)

def peakmem_nothing():
    pass
"""


def test_a_peak_is_that_of_its_own_process(repository: Repository) -> None:
    commit = repository.commit(work(1), PEAKS)
    done, out = ab(repository, commit, commit, "--pairs", "3:3")
    assert done.exit_code == 0, done.output
    found = pairs_of(out)
    nothing, large = (found[f"suite.peakmem_{name}"] for name in ("nothing", "large"))
    assert max(*nothing.base, *nothing.head) < 150e6
    assert min(*large.base, *large.head) > max(nothing.base) + 140e6
