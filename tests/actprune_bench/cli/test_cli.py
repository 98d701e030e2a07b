"""The command line: one line and exit code 2 for bad input, and each command once for real."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import actprune
from actprune import FORMATS
from actprune_bench.cli import main
from actprune_bench.compare import interleaved
from actprune_bench.measure import kernels as measuring
from actprune_common import results
from tests.samples import kernel, make, sample

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    """Runs a command in this process, in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "ROTATION_BYTES", 1)  # of tiny inputs it would be thousands
    monkeypatch.setattr(
        interleaved, "predicted_peak", lambda config: 1000
    )  # they take seconds each
    monkeypatch.setattr(interleaved, "measured_peak", lambda config: 900)

    def run_here(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["actprune", *map(str, words)])
        with pytest.raises(SystemExit) as done:
            main()
        captured = capsys.readouterr()
        return int(done.value.code or 0), captured.out, captured.err

    return run_here


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
    assert "cuda: triton   bsr, coo, csr in fp32, fp16, bf16: " in text
    assert "cuda: cusparse coo, csr in fp32, fp64: " in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["kernels", "--format", "ell"],
            f"formats: spec: expected a format of {', '.join(FORMATS)}, got 'ell'",
        ),
        (["kernels", "--shape", "8x8"], "--shape: expected ROWSxFEATURESxOUT_FEATURES, got '8x8'"),
        (["kernels", "--dtype", "int3"], "kernels.dtype: expected one of float64, float32, float1"),
        (["kernels", "--device", "tpu"], "kernels.device: expected cpu or cuda, got 'tpu'"),
        (["kernels", "--threads", "0"], "threads: expected greater than or equal to 1, got 0"),
        (["kernels", "--json", "/dev/null"], "/dev/null: is there already; name another file"),
        (["compare", "--resume"], "--resume: expected --out to name the folder to go on in"),
        (["compare", "--data", "mnist"], "training.data: data: expected one of embedded, "),
        (["compare", "--out", "/dev/null/x"], "/dev/null/x: cannot be made (Not a directory)"),
        (["compare", "--config", "none.yaml"], "none.yaml: cannot be read (No such file or dir"),
        (["report", "none.json"], "none.json: cannot be read (No such file or directory)"),
        (["train", "--model", "vgg"], "model: expected one of resmlp_tiny, resm"),
        (["train", "--resume"], "--resume: expected --out to name the folder to go on in"),
        (["train", "--lr", "0"], "lr: expected greater than 0, got 0"),
    ],
)
def test_bad_input_is_one_line(words: list[str], message: str, tmp_path: Path, call: Call) -> None:
    code, _, errors = call(*words)
    assert code == 2
    assert errors.startswith(f"actprune: error: {message}")
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


CONFIG = """
formats: ["csr:sparsity=0.9", "bsr:block=1x32,select=priority"]
threads: 1
kernels:
  samples: 2
  shapes: [{name: fc, rows: 64, features: 48, out_features: 32}]
  heat_map: {blocks: [1x8, 8x8], sparsities: [0.5, 0.9], samples: 2}
training: {limit_train: 64, limit_test: 40, batch_size: 16, seeds: [0, 1], epochs: 1}
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "formats: [dense]\nkernel: 3\n",
            "2: kernel: unknown key; known are formats, threads, ker",
        ),
        (
            "training:\n  epochs: 0\n",
            "2: training.epochs: expected greater than or equal to 1, go",
        ),
        ("training:\n  lrr: 1\n", "2: training.lrr: unknown key; known are model, data, "),
        ("training:\n  seed: 1\n", "1: training: seed: stands in seeds"),
        ("training:\n  seeds: [1, 1]\n", "2: training.seeds: expected each once, got [1, 1]"),
        ("training:\n  model: vgg\n", "2: training.model: expected one of resmlp_tiny, resmlp_s12"),
        ("formats: [bsr:block=0]\n", "1: formats: block: expected 1"),
        ("kernels:\n  dtype: int3\n", "2: kernels.dtype: expected one of float64, float32, float1"),
        ("kernels:\n  heat_map: {blocks: [3y]}\n", "2: kernels.heat_map: block: expected a size"),
        ("kernels: null\ntraining: null\n", "1: kernels, training: expected at least one of them"),
    ],
)
def test_a_bad_configuration_names_its_line(
    text: str, message: str, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    code, _, errors = call("compare", "--config", "c.yaml", "--out", "out")
    assert code == 2
    assert errors.startswith(f"actprune: error: c.yaml:{message}")
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_data_that_is_not_there_is_named(tmp_path: Path, call: Call) -> None:
    (tmp_path / "c.yaml").write_text("training: {data: 'folder:none'}\nkernels: null\n")
    code, _, errors = call("compare", "--config", "c.yaml", "--out", "out")
    assert (code, errors.count("\n")) == (2, 1)
    assert "none" in errors


def test_compare_from_start_to_page(tmp_path: Path, call: Call) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    words = ["compare", "--config", "c.yaml", "--out", "out"]
    code, printed, errors = call(*words)
    assert (code, errors) == (0, "")
    assert "the page: out/index.html" in printed
    made = results.read(tmp_path / "out/results.json")
    specs = ["dense", "csr:sparsity=0.9", "bsr:block=1x32,sparsity=0.9,select=priority"]
    assert [(run.spec, run.seed) for run in made.training] == [
        (s, n) for n in (0, 1) for s in specs
    ]
    assert len({record.data_digest for record in made.training}) == 1
    assert len(made.kernels) == 3 * 3 + 4
    assert all(record.ok for record in made.kernels)
    assert (tmp_path / "out/index.html").stat().st_size > 1_000_000
    code, _, errors = call(*words)
    assert code == 2
    assert "out: is not empty; --resume goes on there, or name another folder" in errors
    assert call("compare", "--out", "out", "--resume")[0] == 0
    assert results.read(tmp_path / "out/results.json") == made
    code, _, errors = call("compare", "--format", "coo", "--out", "out", "--resume")
    assert (code, "out: holds another comparison: formats, threads, " in errors) == (2, True)


def test_interrupted_and_resumed(tmp_path: Path, call: Call) -> None:
    (tmp_path / "c.yaml").write_text(
        "formats: [coo]\nthreads: 1\nkernels: null\ntraining:"
        " {limit_train: 64, limit_test: 40, batch_size: 16, checkpoint_every: 1, epochs: 10}\n"
    )
    words = ["compare", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "actprune", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs ignore Ctrl-C, and so would what they start
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    while not list((tmp_path / "out").glob("training/*/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    go_on = f"actprune compare --out {tmp_path / 'out'} --resume"
    assert errors == f"actprune: interrupted; what was measured is kept: {go_on}\n"
    assert call(*go_on.split()[1:])[0] == 0
    assert len(results.read(tmp_path / "out/results.json").training) == 2


def test_kernels_alone(tmp_path: Path, call: Call) -> None:
    words = ["--format", "bsr:block=1x8", "--shape", "64x32x16", "--samples", "2", "--threads", "1"]
    words += ["--format", "head=>csr;*=>dense", "--format", "lean+csr"]  # no kernels of their own
    code, printed, errors = call("kernels", *words, "--json", "k.json")
    assert (code, errors) == (0, "")
    assert "bsr:block=1x8" in printed
    specs = [record.spec for record in results.read(tmp_path / "k.json").kernels]
    assert specs == ["dense", "bsr:block=1x8,sparsity=0.9"] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["k.json"]


def test_report_from_files(tmp_path: Path, call: Call) -> None:
    results.write(tmp_path / "a.json", sample())
    kernels_alone = make(sample().environment.model_dump(), [kernel("coo")], [])
    results.write(tmp_path / "b.json", kernels_alone)
    code, printed, errors = call("report", "a.json", "b.json", "--out", "page")
    assert (code, errors) == (0, "")
    assert "the page: page/index.html" in printed
    assert "actprune kernels --format &#39;coo&#39;" in (tmp_path / "page/index.html").read_text()


def test_train_writes_what_the_file_says(tmp_path: Path, call: Call) -> None:
    (tmp_path / "t.yaml").write_text("limit_train: 64\nlimit_test: 40\nepochs: 2\n")
    words = ["t.yaml", "--epochs", "1", "--batch-size", "16", "--exclude", "head"]
    code, _, errors = call("train", *words, "--out", "run")
    assert (code, errors) == (0, "")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert len(metrics["history"]) == 1
    assert metrics["config"]["exclude"] == ["head"]
