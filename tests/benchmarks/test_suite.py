"""The suites: one table of cases for asv and pytest-benchmark; what cannot run is skipped."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from asv_runner.discovery import disc_benchmarks  # type: ignore[import-untyped]

from actprune_ci.measure.runner.suite import discover
from actprune_ci.readers import read
from benchmarks import cases, suite
from benchmarks.cases import OPS, Case, Shape

ROOT = Path(__file__).parents[2]
SMALL = Shape(70, 48, 40)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The layers, in small."""
    cases.case.cache_clear()
    for name in cases.LAYERS:
        monkeypatch.setitem(cases.LAYERS, name, SMALL)
    yield
    cases.case.cache_clear()


def asvs() -> dict[str, Any]:
    return {each.name: each for each in disc_benchmarks(str(ROOT / "benchmarks"))}


def test_asv_and_the_ab_runner_find_the_same_benchmarks() -> None:
    theirs, (ours, problems) = asvs(), discover("benchmarks")
    assert problems == {}
    assert set(ours) == set(theirs)
    for name, benchmark in ours.items():
        other, described = theirs[name], benchmark.described()
        assert described["params"] == other.params, name
        assert described["param_names"] == other.param_names, name
        assert described["unit"] == other.unit, name
        assert described["timeout"] == (other.timeout or 60), name
        assert [h.__name__ for h in benchmark.hooks("setup")] == [
            h.__name__ for h in other._setups
        ], name


def test_every_kind_of_figure_is_there() -> None:
    found = set(asvs())
    assert {
        *(f"suite.Kernels.time_{op}" for op in OPS),
        "suite.Bytes.track_store_bytes",
        "suite.Bytes.track_saved_bytes",
        "suite.Bytes.track_nbytes_ratio",
        "suite.Peak.track_predicted_peak",
        "suite.Training.time_step",
        "suite.Training.peakmem_step",
        "suite.Compiled.time_step",
        "suite.Compiled.track_saved_bytes",
        "suite.DevicePeak.track_measured_peak",
        "suite.Trained.track_accuracy",
        "suite.Trained.track_throughput",
        "suite.Static.track_registers",
        "suite.Static.track_spill_bytes",
        "suite.Executed.track_instructions",
        "suite.Executed.track_cache_misses",
        "suite.timeraw_import_actprune",
    } <= found
    assert {name.partition(".")[0] for name in found} == {"suite"}


def test_what_asv_imports_needs_torch_and_nothing_else() -> None:
    """An older commit's environment has neither this one's API nor its development tools."""
    absent = ["actprune", "actprune_kernels", "numpy", "triton", "pytest", "scipy", "duckdb"]
    absent += ["rich", "yaml", "pydantic"]
    program = f"""
import sys
from actprune_ci.measure.runner.suite import discover
sys.modules.update(dict.fromkeys({absent}))
found, problems = discover("benchmarks")
print(sorted(problems.items()), len(found))
"""
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"[] {len(asvs())}\n"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("spec", cases.specs(wide=True))
def test_every_case_runs_and_says_what_it_keeps(spec: str) -> None:
    kernels, kept = suite.Kernels(), suite.Bytes()
    kernels.setup(spec, "fc1", "cpu")
    kept.setup(spec, "fc1")
    for op in OPS:
        getattr(kernels, f"time_{op}")(spec, "fc1", "cpu")
    assert kept.track_store_bytes(spec, "fc1") == kept.case.store.nbytes
    ratio = kept.track_nbytes_ratio(spec, "fc1")
    assert ratio == kept.case.store.nbytes / (70 * 48 * 4)
    assert kept.track_saved_bytes(spec, "fc1") == kept.case.store.nbytes
    assert ratio == 1 if spec == "dense" else ratio > 0


def test_the_wide_grid_holds_the_default_one() -> None:
    assert set(cases.specs(wide=False)) < set(cases.specs(wide=True))
    assert len(cases.specs(wide=True)) == len(set(cases.specs(wide=True)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_its_benchmarks_are_skipped() -> None:
    with pytest.raises(NotImplementedError, match="no CUDA device"):
        suite.Kernels().setup("dense", "fc1", "cuda")
    with pytest.raises(NotImplementedError, match="no CUDA device"):
        suite.Training().setup("dense", "cuda")
    with pytest.raises(NotImplementedError, match="no CUDA device"):
        suite.DevicePeak().setup("dense")


def test_what_an_older_commit_lacks_is_skipped() -> None:
    for module, name in (("actprune.not_yet", "x"), ("actprune", "not_yet")):
        with pytest.raises(NotImplementedError, match=r"this commit lacks it: .*not_yet"):
            cases.since(module, name)
    with pytest.raises(NotImplementedError, match=r"this commit lacks it: .*'not_yet'"):
        Case("not_yet:sparsity=0.9", SMALL)
    with pytest.raises(NotImplementedError, match="this commit lacks it: "):
        suite.configured(not_yet=1)


def test_an_older_commit_is_measured_with_its_own_modules(tmp_path: Path) -> None:
    """Even where this one's packages are installed, as in a comparison of two checkouts."""
    package = tmp_path / "actprune"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tolerance.py").write_text("relative_error = 'its own'\n")
    code = """
from benchmarks.cases import since
print(*since("actprune_bench.measure.tolerance", "relative_error"))
"""
    places = [str(tmp_path), *(str(ROOT / root) for root in ("impl", "kernels", "ci")), str(ROOT)]
    done = subprocess.run(
        (sys.executable, "-c", code),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("its own\n", "")


def test_a_wrong_product_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Case("bsr:block=8x8,sparsity=0.5", SMALL)
    made.check()
    right = made.store.grad_weight(made.dy)
    for wrong, error in ((right + 1, r"\d"), (right * math.nan, "nan")):
        kept = SimpleNamespace(to_dense=made.store.to_dense, grad_weight=lambda _, w=wrong: w)
        monkeypatch.setattr(made, "store", kept)
        with pytest.raises(RuntimeError, match=f"grad_weight is off by {error}"):
            made.check()
        monkeypatch.undo()


def test_training_makes_steps() -> None:
    training = suite.Training()
    training.setup("bsr:block=1x32,sparsity=0.9", "cpu")
    before = [p.clone() for p in training.model.parameters()]
    training.time_step("", "cpu")
    after = list(training.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_suite_names_every_kernel_that_is_shipped() -> None:
    code = """
from actprune_bench.gpu_static.kernel_variants import shipped, variants
print(*sorted({f"{v.module.split('.')[1]} {v.kernel.lstrip('_')}" for v in variants(shipped())}),
      sep="\\n")
"""
    compiled = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        (sys.executable, "-c", code), env=compiled, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == sorted(suite.KERNELS)


def test_static_figures_are_summed_over_variants() -> None:
    def record(arch: int, registers: int, spilled: int) -> dict[str, Any]:
        return {
            "kernel": "bsr gather",
            "arch": arch,
            "registers": registers,
            "spill_store_bytes": spilled,
            "spill_load_bytes": spilled,
            "shared_bytes": registers * 10,
            "code_bytes": 100,
        }

    figures = suite.summed([record(80, 30, 0), record(80, 40, 4), record(90, 7, 0)])
    assert figures["bsr gather", 80] == {
        "registers": 40,
        "registers_of_all": 70,
        "spill_bytes": 8,
        "shared_bytes": 400,
        "code_bytes": 200,
    }
    static = suite.Static()
    static.setup(figures, "bsr gather", 90)
    assert static.track_registers(figures, "bsr gather", 90) == 7
    with pytest.raises(NotImplementedError, match="not compiled here"):
        static.setup(figures, "bsr gather", 100)


def test_pytest_benchmark_measures_the_table(tmp_path: Path) -> None:
    """One case of it, in a process of its own; the store's reader takes its file."""
    out = tmp_path / "bench.json"
    words = ("tests/bench/bench_kernels.py", "-k", "tokens and dense and cpu and compress")
    # beside pytest-xdist's workers pytest-benchmark refuses to measure
    alone = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", *words, "--benchmark-json", str(out)),
        cwd=ROOT,
        env=alone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (benchmark,) = json.loads(out.read_text("utf-8"))["benchmarks"]
    assert benchmark["extra_info"] == {
        "spec": "dense",
        "layer": "tokens",
        "shape": "12288x196x196",
        "op": "compress",
        "dtype": "float32",
        "device": "cpu",
        "store_bytes": 12288 * 196 * 4,
        "nbytes_ratio": 1.0,
        "saved_bytes": 12288 * 196 * 4,
    }
    (run,) = read(out)
    time = next(m for m in run.measurements if m.key.metric == "time")
    assert len(time.samples) == 15
    assert dict(time.key.params)["layer"] == "tokens"


def test_pytest_benchmarks_table_is_asvs() -> None:
    """Without measuring: the names that both make of the table."""
    from tests.bench import bench_kernels

    marks = bench_kernels.test_op.pytestmark
    assert marks[0].args == ("op", OPS)
    named = {f"suite.Kernels.time_{op}" for op in OPS}
    grid = list(product(cases.specs(), cases.LAYERS, cases.DEVICES))
    for name in named:
        assert list(product(*suite.Kernels.params)) == grid
        assert name in asvs()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
@pytest.mark.usefixtures("rooted")
def test_instructions_of_the_cases_are_counted() -> None:
    cases_ = [("dense", "grad_weight"), ("csr:sparsity=0.9", "compress"), ("unknown", "compress")]
    counts = suite.executed(cases_)
    assert list(counts) == cases_
    executed = suite.Executed()
    for spec, operation in cases_[:2]:
        executed.setup(counts, spec, operation)
        assert executed.track_instructions(counts, spec, operation) > 100_000
        assert executed.track_cache_misses(counts, spec, operation) > 10_000
    with pytest.raises(NotImplementedError, match="this commit lacks it: "):
        executed.setup(counts, *cases_[2])


def test_without_valgrind_no_instructions_are_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    counts = suite.Executed().setup_cache()
    assert counts == {}
    with pytest.raises(NotImplementedError, match="not counted here: needs valgrind"):
        suite.Executed().setup(counts, "dense", "compress")


@pytest.fixture
def rooted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository's root, from which a process under valgrind imports the suite."""
    monkeypatch.syspath_prepend(str(ROOT))
