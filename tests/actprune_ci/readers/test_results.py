"""The torch-free reader of results.json: what it accepts, sums up and refuses."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actprune_ci.readers.results import ResultsError, main, read, summary, table

Document = dict[str, Any]


KERNEL: Document = {
    "op": "linear",
    "rows": 64,
    "features": 32,
    "out_features": 16,
    "dtype": "float32",
    "device": "cpu",
    "backend": "cpu",
    "samples_ms": [1, 1.5],
    "nbytes": 800,
    "nbytes_ratio": 0.1,
    "rel_error": 1e-7,
    "extra": "kept",
}
TRAINING: Document = {
    "model": "resmlp_tiny",
    "data": "embedded",
    "data_digest": "sha256:0",
    "epochs": 1,
    "steps": 10,
    "step_ms": 9.5,
    "saved_bytes": 100,
    "saved_ratio": 0.5,
    "predicted_peak_bytes": 900,
    "measured_peak_bytes": 1000,
    "accuracy_delta": -0.5,
    "grad_cosine": 0.99,
}


def kernel(spec: str, op: str, ratio: float | None) -> Document:
    median = None if ratio is None else 1.25
    passed = {"median_ms": median, "ratio_to_dense": ratio, "ok": ratio is not None}
    return {**KERNEL, "spec": spec, "op": op, **passed}


def training(spec: str, seed: int, accuracy: float) -> Document:
    figures = {"ratio_to_dense": 0.8 + seed / 10, "accuracy": accuracy}
    return {**TRAINING, "spec": spec, "seed": seed, **figures}


def document() -> Document:
    return {
        "schema": 1,
        "environment": {"cpu": "some"},
        "kernels": [
            kernel("dense", "linear", 1.0),
            kernel("bsr", "linear", 0.5),
            kernel("bsr", "linear", 0.7),
            kernel("bsr", "linear", 0.9),
            kernel("bsr", "compress", 2.0),
            kernel("bsr", "grad_weight", None),
        ],
        "training": [training("bsr", 0, 80.0), training("bsr", 1, 81.0)],
    }


def write(folder: Path, content: Document) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps(content), "utf-8")
    return path


def test_read_keeps_every_record_and_field(tmp_path: Path) -> None:
    results = read(write(tmp_path, document()))
    assert results.environment == {"cpu": "some"}
    assert list(results.kernels) == document()["kernels"]
    assert list(results.training) == document()["training"]


def test_summary_is_per_spec_over_the_records_that_passed(tmp_path: Path) -> None:
    sums = summary(read(write(tmp_path, document())))
    assert list(sums) == ["dense", "bsr"]
    assert sums["bsr"] == {
        "compress": 2.0,
        "grad_weight": None,
        "linear": 0.7,
        "failed": 1,
        "step": pytest.approx(0.85),
        "saved": 0.5,
        "accuracy": 80.5,
    }
    assert sums["dense"]["linear"] == 1.0
    assert sums["dense"]["accuracy"] is None


def test_table_is_aligned_with_a_dash_for_no_figure(tmp_path: Path) -> None:
    assert table(read(write(tmp_path, document()))).splitlines() == [
        "spec   compress  grad_weight  linear  failed  step  saved  accuracy",
        "dense         -            -       1       0     -      -         -",
        "bsr           2            -     0.7       1  0.85    0.5      80.5",
    ]


def change(*keys: str | int, to: Any) -> Callable[[Document], None]:
    def apply(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    return apply


def drop(*keys: str | int) -> Callable[[Document], None]:
    def apply(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return apply


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (drop("schema"), "schema: expected a whole number, but it is missing"),
        (change("schema", to=2), "schema: expected 1, got 2"),
        (change("schema", to=True), "schema: expected a whole number, got true"),
        (change("environment", to=[]), "environment: expected an object, got []"),
        (change("kernels", to={}), "kernels: expected a list, got {}"),
        (change("kernels", 1, to=7), "kernels[1]: expected an object, got 7"),
        (change("kernels", 1, "spec", to=7), "kernels[1].spec: expected a text, got 7"),
        (
            drop("kernels", 2, "nbytes"),
            "kernels[2].nbytes: expected a whole number, but it is missing",
        ),
        (
            change("kernels", 0, "samples_ms", to=[1.0, None]),
            "kernels[0].samples_ms: expected a list of numbers, got [1.0, null]",
        ),
        (
            change("kernels", 0, "op", to="sort"),
            "kernels[0].op: expected one of compress, grad_weight, linear, got 'sort'",
        ),
        (
            change("kernels", 5, "ratio_to_dense", to=0.1),
            "kernels[5].ratio_to_dense: expected null where ok is false, got 0.1",
        ),
        (
            change("kernels", 0, "median_ms", to=None),
            "kernels[0].median_ms: expected a number where ok is true, got None",
        ),
        (
            change("training", 1, "accuracy", to="x" * 100),
            f'training[1].accuracy: expected a number, got "{"x" * 59}...',
        ),
        (
            change("training", 0, "accuracy", to=float("nan")),
            "not JSON: NaN is no JSON number",
        ),
    ],
)
def test_a_bad_file_is_one_line_that_names_file_and_field(
    tmp_path: Path, break_it: Callable[[Document], None], message: str
) -> None:
    content = document()
    break_it(content)
    path = write(tmp_path, content)
    with pytest.raises(ResultsError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"schema": 1', "not JSON: Expecting ',' delimiter: line 1 column 13 (char 12)"),
        (b"", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"[]", "expected an object with schema, environment, kernels, training"),
    ],
)
def test_a_file_that_is_no_object(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(ResultsError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: {message}"


def test_bytes_that_are_no_text_and_endless_nesting(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for content in (b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ResultsError, match=r"results\.json: not JSON: "):
            read(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ResultsError) as caught:
        read(tmp_path / "none.json")
    assert (
        str(caught.value) == f"{tmp_path / 'none.json'}: cannot be read: No such file or directory"
    )


def test_command_line_prints_the_table(tmp_path: Path) -> None:
    path = write(tmp_path, document())
    done = subprocess.run(
        [sys.executable, "-m", "actprune_ci.readers.results", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == table(read(path)) + "\n"


def test_command_line_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none.json"
    assert main([str(path)]) == 2
    assert capsys.readouterr() == ("", f"{path}: cannot be read: No such file or directory\n")
    assert main([]) == 2
    assert capsys.readouterr() == ("", "usage: python -m actprune_ci.readers.results FILE\n")
