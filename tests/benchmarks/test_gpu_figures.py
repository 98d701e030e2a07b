"""The script of a GPU visit, small, on the CPU. Its CUDA parts a GPU must show."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from torch import nn

import actprune
from actprune.strategies import grammar
from actprune_bench.measure import kernels
from actprune_bench.measure.kernels import Shape
from benchmarks.scripts import gpu_figures
from benchmarks.scripts.gpu_figures import Part, Plan, Record
from tests.repository.test_architecture import blocking

ROOT = Path(__file__).parents[2]
PLAN = Plan(
    torch.device("cpu"),
    [Shape("fc", 70, 32, 48)],
    samples=1,
    models=[("resmlp_tiny", 2)],
    sparsities=(0.5, 0.9),
    quick=True,
)


@pytest.fixture(autouse=True)
def one_thread(fixed_torch: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sizes; two threads on a busy machine wait for each other."""
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the parts' process


def test_every_part_runs_and_is_written(tmp_path: Path) -> None:
    made = gpu_figures.run(PLAN, tmp_path, float("inf"))
    about = json.loads((tmp_path / "environment.json").read_text())
    assert (about["failed"], about["left_out"]) == ([], [])
    assert json.loads((tmp_path / "kernels.json").read_text()) == made["kernels"]
    assert all(record["ok"] for record in made["kernels"] if "torch-" not in record["spec"])
    libraries = {r["spec"] for r in made["kernels"] if r["part"] == "libraries fp32"}
    assert {"torch-csr", "torch-bsr-32", "dense"} <= libraries
    coded = {(r["spec"], r["op"], r["dtype"]) for r in made["kernels"] if r["part"][:5] == "codes"}
    ways = {("copy", "copy")} | {
        (f"codes:bits={b}", op) for b in (4, 8) for op in ("pack", "unpack")
    }
    assert coded == {(*way, dtype) for way in ways for dtype in ("bfloat16", "float32")}
    trained = {(r["dtype"], r["spec"]): r for r in made["training"]}
    assert len(trained) == 2 * len(gpu_figures.TRAINED)
    assert all(record["predicted_peak_bytes"] > 0 for record in trained.values())
    for spec in gpu_figures.TRAINED[1:]:
        assert trained["float32", spec]["saved_ratio"] < 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "environment.json",
        "kernels.json",
        "training.json",
    ]
    assert len(gpu_figures.targets(made)) > 10


def test_what_the_budget_leaves_out_is_listed(tmp_path: Path) -> None:
    assert gpu_figures.run(PLAN, tmp_path, -1) == {"kernels": [], "training": []}
    about = json.loads((tmp_path / "environment.json").read_text())
    assert len(about["left_out"]) == 12
    assert about["left_out"][0] == "bf16 at 90 %"


class CompilationError(Exception):
    """Triton's derives from Exception alone, too."""


def broken_parts(plan: Plan) -> Iterator[Part]:
    """Parts that fail in every way, each after a record, with sound ones between them."""

    def sound() -> Iterator[Record]:
        yield {"process": os.getpid()}

    def raising() -> Iterator[Record]:
        yield from sound()
        raise CompilationError("no such instruction")

    def ending() -> Iterator[Record]:
        yield from sound()
        os._exit(3)

    def hanging() -> Iterator[Record]:
        yield from sound()
        time.sleep(600)

    def unsendable() -> Iterator[Record]:
        yield {"a lock": lambda: None}

    for name, measure in (
        ("first", sound),
        ("raising", raising),
        ("second", sound),
        ("ending", ending),
        ("hanging", hanging),
        ("unsendable", unsendable),
        ("third", sound),
        ("fourth", sound),
    ):
        yield Part(name, "kernels", measure)


def test_a_part_that_fails_in_any_way_loses_nothing_but_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = gpu_figures.run(PLAN, tmp_path, float("inf"), part_s=5, parts=broken_parts)
    processes = {record["part"]: record["process"] for record in made["kernels"]}
    every = ["first", "raising", "second", "ending", "hanging", "third", "fourth"]
    assert list(processes) == every  # what was measured before the failure, too
    assert processes["first"] != processes["second"] != processes["third"] == processes["fourth"]
    assert json.loads((tmp_path / "kernels.json").read_text()) == made["kernels"]
    failed = json.loads((tmp_path / "environment.json").read_text())["failed"]
    errors = {each["part"]: each["error"] for each in failed}
    assert "pickle" in errors.pop("unsendable")
    assert errors == {
        "raising": "CompilationError: no such instruction",
        "ending": "its process ended with 3",
        "hanging": "stopped after 5 s",
    }
    assert "in raising\n" in failed[0]["traceback"]
    assert "raising: failed: CompilationError: no such instruction\n" in capsys.readouterr().out


def test_a_prediction_that_fails_loses_nothing_but_itself() -> None:
    prediction = Future[int]()
    prediction.set_exception(RuntimeError("no fake of it"))
    assert gpu_figures.collected(prediction) == {
        "predicted_peak_bytes": None,
        "prediction_error": "RuntimeError: no fake of it",
    }


def test_a_format_that_does_not_compile_is_left_out_of_its_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def convert(layer: nn.Module, spec: str) -> nn.Module:
        if spec.startswith("csr"):
            raise CompilationError("no such instruction")
        return actprune.convert(layer, spec)

    def apply(model: nn.Module, spec: str) -> nn.Module:
        if spec.startswith("lean"):
            raise CompilationError("no such instruction")
        return grammar.apply(model, spec)

    monkeypatch.setattr(kernels, "ROTATION_BYTES", 1)
    monkeypatch.setattr(gpu_figures, "convert", convert)
    monkeypatch.setattr(gpu_figures, "apply", apply)
    specs = ["csr:sparsity=0.9", "coo:sparsity=0.9"]
    made = list(gpu_figures.kernel_records(PLAN, specs, torch.float32, ("grad_weight",)))
    bad, dense, coo = made
    assert bad["error"] == "CompilationError: no such instruction"
    assert "in convert\n" in bad["traceback"]
    assert [(r["spec"].partition(":")[0], r["ok"]) for r in made] == [
        ("csr", False),
        ("dense", True),
        ("coo", True),
    ]
    assert None not in (dense["median_ms"], coo["median_ms"])
    specs = ["dense", gpu_figures.BLOCK, f"lean+{gpu_figures.BLOCK}"]
    training = gpu_figures.Training("cpu", "resmlp_tiny", 2, autocast=False)
    trained = list(gpu_figures.training_records(PLAN, training, specs))
    assert [record["ok"] for record in trained] == [False, True, True]
    assert "in apply\n" in trained[0]["traceback"]
    rows = gpu_figures.targets({"kernels": [], "training": trained})
    assert [reached for what, reached, _ in rows if "lean" in what] == ["failed"]


def test_the_crossover_is_the_least_sparsity_from_which_on_ours_wins() -> None:
    def record(sparsity: float, ratio: float) -> dict[str, object]:
        spec = f"bsr:block=1x64,sparsity={sparsity}"
        return {"part": "bf16 by sparsity", "spec": spec, "ratio_to_dense": ratio}

    records = [record(0.5, 0.9), record(0.6, 1.2), record(0.7, 0.8), record(0.9, 0.3)]
    assert gpu_figures.crossover(records, "1x64") == "70%"
    assert gpu_figures.crossover([*records, record(0.7, 1.1)], "1x64") == "90%"
    assert gpu_figures.crossover(records, "64x64") == "none"


@pytest.mark.parametrize(
    "options", ["-k 'saved_bytes or errors_name'", pytest.param("", marks=pytest.mark.slow)]
)
def test_the_script_says_what_it_lacks(tmp_path: Path, options: str) -> None:
    script = str(ROOT / "benchmarks/gpu_check.sh")
    alone = subprocess.run([script], capture_output=True, text=True, check=False)
    assert alone.returncode == 2
    assert alone.stderr == "usage: benchmarks/gpu_check.sh OUT\n"
    environment = os.environ | {"DEVICE": "cpu", "BUDGET": "-1", "PYTHON": sys.executable}
    environment["PYTEST_ADDOPTS"] = options
    done = subprocess.run(
        [script, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "left out, the budget was used: bf16 at 90 %, bf16 by sparsity" in done.stdout
    assert re.search("[1-9][0-9]* tests: 0 failed", done.stdout)  # what a CPU can run of tests/gpu
    assert (tmp_path / "out/environment.json").is_file()


def test_the_figures_need_little_of_what_the_application_needs() -> None:
    names = ("rich", "yaml", "pydantic", "typer", "plotly", "jinja2", "PIL", "psutil", "scipy")
    code = blocking(names) + "import benchmarks.scripts.gpu_figures, benchmarks.scripts.gpu_tune"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_figures_say_so(tmp_path: Path) -> None:
    for script in ("gpu_figures", "gpu_tune"):
        command = [sys.executable, "-m", f"benchmarks.scripts.{script}", "--out", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "expected a CUDA device that torch can use, found none" in done.stderr
