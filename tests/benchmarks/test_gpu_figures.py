"""The script of a GPU visit, small, on the CPU. Its CUDA parts a GPU must show."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from actprune_bench.measure.kernels import Shape
from benchmarks.scripts import gpu_figures

ROOT = Path(__file__).parents[2]
PLAN = gpu_figures.Plan(
    torch.device("cpu"), [Shape("fc", 70, 32, 48)], samples=1, models=[("resmlp_tiny", 2)]
)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=120)


@pytest.fixture(autouse=True)
def one_thread(fixed_torch: None) -> None:
    """Small sizes; two threads on a busy machine wait for each other."""
    torch.set_num_threads(1)


def test_every_part_runs_and_is_written(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_figures, "SPARSITIES", (0.5, 0.9))
    made = gpu_figures.run(PLAN, tmp_path, float("inf"), console)
    about = json.loads((tmp_path / "environment.json").read_text())
    assert (about["failed"], about["left_out"]) == ([], [])
    assert json.loads((tmp_path / "kernels.json").read_text()) == made["kernels"]
    assert all(record["ok"] for record in made["kernels"] if "torch-" not in record["spec"])
    libraries = {r["spec"] for r in made["kernels"] if r["part"] == "libraries fp32"}
    assert {"torch-csr", "torch-bsr-32", "dense"} <= libraries
    trained = {(r["dtype"], r["spec"]): r for r in made["training"]}
    assert len(trained) == 2 * len(gpu_figures.TRAINED)
    for spec in gpu_figures.TRAINED[1:]:
        assert trained["float32", spec]["saved_ratio"] < 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "environment.json",
        "kernels.json",
        "training.json",
    ]
    table = gpu_figures.targets(made)
    assert table.row_count > 10


def test_what_the_budget_leaves_out_is_listed(tmp_path: Path, console: Console) -> None:
    assert gpu_figures.run(PLAN, tmp_path, -1, console) == {"kernels": [], "training": []}
    about = json.loads((tmp_path / "environment.json").read_text())
    assert len(about["left_out"]) == 10
    assert about["left_out"][0] == "bf16 at 90 %"


def test_a_part_that_fails_is_named_and_the_others_run(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> object:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(gpu_figures, "SPARSITIES", ())
    monkeypatch.setattr(gpu_figures, "measure_kernels", fail)
    made = gpu_figures.run(PLAN, tmp_path, float("inf"), console)
    about = json.loads((tmp_path / "environment.json").read_text())
    first = {"part": "bf16 at 90 %", "error": "RuntimeError: no such kernel"}
    assert about["failed"][0] == first
    assert made["training"]


def test_the_crossover_is_the_least_sparsity_from_which_on_ours_wins() -> None:
    def record(sparsity: float, ratio: float) -> dict[str, object]:
        spec = f"bsr:block=1x64,sparsity={sparsity}"
        return {"part": "bf16 by sparsity", "spec": spec, "ratio_to_dense": ratio}

    records = [record(0.5, 0.9), record(0.6, 1.2), record(0.7, 0.8), record(0.9, 0.3)]
    assert gpu_figures.crossover(records, "1x64") == "70%"
    assert gpu_figures.crossover([*records, record(0.7, 1.1)], "1x64") == "90%"
    assert gpu_figures.crossover(records, "64x64") == "none"


def test_the_script_says_what_it_lacks(tmp_path: Path) -> None:
    script = str(ROOT / "benchmarks/gpu_check.sh")
    alone = subprocess.run([script], capture_output=True, text=True, check=False)
    assert alone.returncode == 2
    assert alone.stderr == "usage: benchmarks/gpu_check.sh OUT\n"
    environment = os.environ | {"DEVICE": "cpu", "BUDGET": "-1", "PYTHON": sys.executable}
    done = subprocess.run(
        [script, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "left out, the budget was used: bf16 at 90 %, bf16 by sparsity" in done.stdout
    assert " 0 failed" in done.stdout  # what a CPU can run of tests/gpu
    assert (tmp_path / "out/environment.json").is_file()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_figures_say_so(tmp_path: Path) -> None:
    for script in ("gpu_figures", "gpu_tune"):
        command = [sys.executable, "-m", f"benchmarks.scripts.{script}", "--out", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "expected a CUDA device that torch can use, found none" in done.stderr
