"""The command line: one line and exit code 2 for bad input, and each command once for real."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import actprune
from actprune import results
from tests.samples import sample


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "actprune", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_version_and_help() -> None:
    assert run("--version").stdout == f"actprune {actprune.__version__}\n"
    text = run("--help").stdout
    for command in ("compare", "kernels", "train", "report", "doctor"):
        assert command in text


def test_doctor_says_what_runs() -> None:
    text = run("doctor").stdout
    assert "cpu backend    dense, coo, csr, bsr in fp32, fp64, fp16, bf16: runs here" in text
    assert "cuda backend   no kernels in this version" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["kernels", "--format", "ell"],
            "spec: expected a format of dense, coo, csr, bsr, got",
        ),
        (["kernels", "--shape", "8x8"], "--shape: expected ROWSxFEATURESxOUT_FEATURES, got '8x8'"),
        (["kernels", "--dtype", "int3"], "dtype: expected a dtype such as float32, got 'int3'"),
        (["compare", "--config", "none.yaml"], "none.yaml: cannot be read (No such file or dir"),
        (["report", "none.json"], "none.json: cannot be read (No such file or directory)"),
        (
            ["train", "--out", "x", "--model", "vgg"],
            "model: expected one of resmlp_tiny, resm",
        ),
        (["train", "--out", "x", "--lr", "0"], "lr: "),
    ],
)
def test_bad_input_is_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "actprune", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"actprune: error: {message}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


CONFIG = """
formats: ["csr:sparsity=0.9", "bsr:block=1x32,select=priority"]
threads: 2
kernels:
  samples: 2
  shapes: [{name: fc, rows: 64, features: 48, out_features: 32}]
  heat_map: {blocks: [1x8, 8x8], sparsities: [0.5, 0.9], samples: 2}
training: {limit_train: 64, limit_test: 40, batch_size: 16, seeds: [0, 1], epochs: 1}
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("formats: [dense]\nkernel: 3\n", "c.yaml:2: kernel: "),
        ("training:\n  epochs: 0\n", "c.yaml:2: training.epochs: "),
        ("formats: [bsr:block=0]\n", "c.yaml:1: formats: "),
        ("training:\n  model: vgg\n", "model: expected one of resmlp_tiny"),
        ("training: {data: 'folder:none'}\nkernels: null\n", "none"),
    ],
)
def test_a_bad_configuration_names_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    done = run("compare", "--config", tmp_path / "c.yaml", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_compare_from_start_to_page(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    out = tmp_path / "out"
    words: list[str | Path] = ["compare", "--config", tmp_path / "c.yaml", "--out", out]
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert f"{out}/index.html" in done.stdout
    made = results.read(out / "results.json")
    assert {record.spec for record in made.training} == {
        "dense",
        "csr:sparsity=0.9",
        "bsr:block=1x32,sparsity=0.9,select=priority",
    }
    assert len(made.training) == 6
    assert len({record.data_digest for record in made.training}) == 1
    assert len(made.kernels) == 3 * 3 + 4
    assert all(record.ok for record in made.kernels)
    assert (out / "index.html").stat().st_size > 1_000_000
    again = run(*words)
    assert again.returncode == 2
    assert "is not empty; --resume goes on there, or name another folder" in again.stderr
    assert run(*words, "--resume").returncode == 0
    assert results.read(out / "results.json").training == made.training


def test_interrupted_and_resumed(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG.replace("epochs: 1", "epochs: 3"))
    words = ["compare", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "actprune", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list((tmp_path / "out").glob("training/*/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors == "actprune: interrupted; what was measured is kept, --resume goes on\n"
    assert run(*words, "--resume").returncode == 0
    assert len(results.read(tmp_path / "out/results.json").training) == 6


def test_kernels_alone() -> None:
    done = run("kernels", "--format", "bsr:block=1x8", "--shape", "64x32x16", "--samples", "2")
    assert done.returncode == 0, done.stderr
    assert "bsr:block=1x8" in done.stdout


def test_report_from_a_file(tmp_path: Path) -> None:
    results.write(tmp_path / "results.json", sample())
    done = run("report", tmp_path / "results.json", "--out", tmp_path / "page")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page/index.html").exists()


def test_train_writes_what_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("limit_train: 64\nlimit_test: 40\nepochs: 2\n")
    out = tmp_path / "run"
    done = run("train", tmp_path / "t.yaml", "--epochs", "1", "--batch-size", "16", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "after 1 epochs" in done.stdout
    assert len(json.loads((out / "metrics.json").read_text())["history"]) == 1
