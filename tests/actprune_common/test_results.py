"""results.json: the shipped schema, the round trip, every kind of bad file, the summary."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from actprune import InputError
from actprune_bench.measure import kernels as measured
from actprune_bench.measure.kernels import Shape, measure_kernels
from actprune_bench.records.environment import environment
from actprune_ci.readers import read as read_runs
from actprune_common import results
from actprune_common.summary import row_of, table
from tests.samples import LAYERS, kernel, make, sample, training

Document = dict[str, Any]


KERNEL: Document = {
    "layer": "fc",
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
    "error": None,
    "command": "actprune kernels",
    "extra": "kept",
}
TRAINING: Document = {
    "model": "resmlp_tiny",
    "data": "embedded",
    "data_digest": "sha256:0",
    "epochs": 1,
    "steps": 10,
    "batch_size": 8,
    "step_ms": 9.5,
    "step_samples_ms": [9.0, 9.5],
    "saved_bytes": 100,
    "saved_ratio": 0.5,
    "predicted_peak_bytes": 900,
    "measured_peak_bytes": 1000,
    "accuracy_per_epoch": [80.0],
    "accuracy_delta": -0.5,
    "grad_cosine": 0.99,
    "command": "actprune train",
}


def checked(spec: str, op: str, ratio: float | None) -> Document:
    median = None if ratio is None else 1.25
    passed = {"median_ms": median, "ratio_to_dense": ratio, "ok": ratio is not None}
    return {**KERNEL, "spec": spec, "op": op, **passed}


def trained(spec: str, seed: int, accuracy: float) -> Document:
    figures = {"ratio_to_dense": 0.8 + seed / 10, "accuracy": accuracy}
    return {**TRAINING, "spec": spec, "seed": seed, **figures}


def document() -> Document:
    return {
        "schema": 1,
        "environment": environment("actprune compare") | {"cpu": "some", "extra": "kept"},
        "kernels": [
            checked("dense", "linear", 1.0),
            checked("bsr", "linear", 0.5),
            checked("bsr", "linear", 0.7),
            checked("bsr", "linear", 0.9),
            checked("bsr", "compress", 2.0),
            checked("bsr", "grad_weight", None),
        ],
        "training": [trained("bsr", 0, 80.0), trained("bsr", 1, 81.0)],
    }


def write(folder: Path, content: Document) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps(content), "utf-8")
    return path


def test_read_keeps_every_record_and_field(tmp_path: Path) -> None:
    content = document()
    found = results.read(write(tmp_path, content))
    assert found.environment.model_dump() == content["environment"]
    assert [record.model_dump() for record in found.kernels] == content["kernels"]
    assert [record.model_dump() for record in found.training] == [
        record | {"layers": []} for record in content["training"]
    ]


def test_summary_is_per_spec_over_the_records_that_passed(tmp_path: Path) -> None:
    found = results.read(write(tmp_path, document()))
    bsr = row_of("bsr", found)
    assert bsr.kernels == {"compress": 2.0, "grad_weight": None, "linear": 0.7}
    assert (bsr.failed, bsr.seeds, bsr.saved_ratio, bsr.accuracy) == (1, 2, 0.5, 80.5)
    assert bsr.step_ratio == pytest.approx(0.85)
    dense = row_of("dense", found)
    assert (dense.kernels["linear"], dense.failed, dense.accuracy) == (1.0, 0, None)


def test_a_layer_that_failed_leaves_no_median_over_the_others(tmp_path: Path) -> None:
    content = document()
    content["kernels"].append(checked("bsr", "linear", None))
    row = row_of("bsr", results.read(write(tmp_path, content)))
    assert row.kernels == {"compress": 2.0, "grad_weight": None, "linear": None}


def test_table_is_aligned_with_a_dash_for_no_figure(tmp_path: Path) -> None:
    assert table(results.read(write(tmp_path, document()))).splitlines() == [
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
        (drop("schema"), "schema: is missing"),
        (change("schema", to=2), "schema: expected 1, got 2"),
        (change("schema", to=True), "schema: expected 1, got True"),
        (change("environment", to=[]), "environment: expected an object, got []"),
        (change("kernels", to={}), "kernels: expected a valid list, got {}"),
        (change("kernels", 1, to=7), "kernels[1]: expected an object, got 7"),
        (change("kernels", 1, "spec", to=7), "kernels[1].spec: expected a valid string, got 7"),
        (drop("kernels", 2, "nbytes"), "kernels[2].nbytes: is missing"),
        (
            change("kernels", 0, "samples_ms", to=[1.0, None]),
            "kernels[0].samples_ms[1]: expected a valid number, got None",
        ),
        (
            change("kernels", 0, "op", to="sort"),
            "kernels[0].op: expected 'compress', 'grad_weight' or 'linear', got 'sort'",
        ),
        (
            change("kernels", 5, "ratio_to_dense", to=0.1),
            "kernels[5]: ratio_to_dense: expected null where ok is false, got 0.1",
        ),
        (
            change("kernels", 0, "median_ms", to=None),
            "kernels[0]: median_ms: expected a number where ok is true, got None",
        ),
        (
            change("training", 1, "accuracy", to="x" * 100),
            f"training[1].accuracy: expected a valid number, got '{'x' * 56}...",
        ),
        (
            change("training", 0, "accuracy", to=float("nan")),
            "not JSON (NaN is no JSON number)",
        ),
    ],
)
def test_a_bad_file_is_one_line_that_names_file_and_field(
    tmp_path: Path, break_it: Callable[[Document], None], message: str
) -> None:
    content = document()
    break_it(content)
    path = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        results.read(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"schema": 1', "not JSON (Expecting ',' delimiter: line 1 column 13 (char 12))"),
        (b"", "not JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"[]", "expected an object with schema, environment, kernels, training"),
    ],
)
def test_a_file_that_is_no_object(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        results.read(path)
    assert str(caught.value) == f"{path}: {message}"


def test_bytes_that_are_no_text_and_endless_nesting(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for content in (b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"results\.json: not JSON \("):
            results.read(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        results.read(tmp_path / "none.json")
    path = tmp_path / "none.json"
    assert str(caught.value) == f"{path}: cannot be read (No such file or directory)"


def test_command_line_prints_the_table(tmp_path: Path) -> None:
    path = write(tmp_path, document())
    done = subprocess.run(
        [sys.executable, "-m", "actprune_common.results", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == table(results.read(path)) + "\n"


def test_command_line_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none.json"
    assert results.main([str(path)]) == 2
    assert capsys.readouterr() == ("", f"{path}: cannot be read (No such file or directory)\n")
    assert results.main([]) == 2
    assert capsys.readouterr() == ("", "usage: python -m actprune_common.results FILE\n")


def json_schema() -> str:
    """What results.schema.json must hold."""
    return json.dumps(results.Results.model_json_schema(by_alias=True), indent=2) + "\n"


def test_the_shipped_schema_is_that_of_the_records() -> None:
    assert Path(results.__file__).with_name("results.schema.json").read_text() == json_schema()


def test_round_trip(tmp_path: Path) -> None:
    path, made = tmp_path / "results.json", sample()
    results.write(path, made)
    assert results.read(path) == made
    jsonschema.validate(json.loads(path.read_text()), json.loads(json_schema()))
    (run,) = read_runs(path)
    assert len({m.key.benchmark for m in run.measurements}) == 4


def test_what_is_measured_fits_the_schema() -> None:
    records = list(measure_kernels(["csr"], [Shape("fc", 64, 32, 16)], samples=2))
    made = make(environment("test"), [record.model_dump() for record in records], [])
    assert made.kernels == records
    assert measured.OPS == results.OPS
    assert [record.spec for record in made.kernels] == ["dense", "csr:sparsity=0.9"] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"results\.json: not JSON \(Expecting value"),
        ('{"schema": 1, "kern', r"results\.json: not JSON \(Unterminated string"),
        ("[]", r"results\.json: expected an object with schema, environment, kernels, training"),
        ('{"schema": 2}', r"results\.json: schema: expected 1, got 2"),
        ('{"kernels": []}', r"results\.json: schema: is missing"),
        ('{"schema": 1}', r"results\.json: environment: is missing"),
        ('{"schema": NaN}', r"results\.json: not JSON \(NaN is no JSON number\)"),
        ("[" * 100_000, r"results\.json: not JSON \("),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        results.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: cannot be read \(No such file"):
        results.read(tmp_path / "none.json")


def test_bad_records_name_their_field() -> None:
    def check(kernels: list[dict[str, object]], runs: list[dict[str, object]]) -> None:
        make(environment("test"), kernels, runs)

    with pytest.raises(
        InputError, match=r"results: kernels\[0\]\.op: expected 'compress'.*, got 'backward'"
    ):
        check([kernel("dense", op="backward")], [])
    lacking = training("dense")
    del lacking["data_digest"]
    with pytest.raises(InputError, match=r"results: training\[0\]\.data_digest: is missing"):
        check([], [lacking])
    with pytest.raises(
        InputError, match=r"results: training\[0\]\.steps: expected a valid integer, g"
    ):
        check([], [training("dense", steps="0")])
    with pytest.raises(
        InputError, match=r"results: kernels\[0\]\.spec: expected some text, got none"
    ):
        check([kernel("dense") | {"spec": ""}], [])
    with pytest.raises(InputError, match=r"median_ms: expected null where ok is false, got 11"):
        check([kernel("dense", ok=False)], [])
    with pytest.raises(InputError, match=r"ratio_to_dense: expected a number where ok is true"):
        check([kernel("dense", ratio_to_dense=None)], [])


def test_what_else_stands_in_a_record_is_kept(tmp_path: Path) -> None:
    made = make(environment("x"), [kernel("dense", joules=3)], [])
    results.write(tmp_path / "r.json", made)
    assert '"joules": 3' in (tmp_path / "r.json").read_text()
    assert results.read(tmp_path / "r.json") == made


def test_a_figure_that_is_not_finite_is_null() -> None:
    records = (
        [kernel("dense", rel_error=float("inf"))],
        [training("dense", grad_cosine=float("nan"))],
    )
    made = make(environment("x"), *records)
    assert (made.kernels[0].rel_error, made.training[0].grad_cosine) == (None, None)


def test_layers_are_of_this_version_and_older_files_lack_them(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results.write(path, make(environment("x"), [], [training("csr:sparsity=0.9")]))
    values = json.loads(path.read_text())
    assert [layer["layer"] for layer in values["training"][0]["layers"]] == LAYERS
    values["training"][0]["layers"][1]["bias"] = "much"
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"training\[0\]\.layers\[1\]\.bias: expected a valid num"):
        results.read(path)
    del values["training"][0]["layers"]
    path.write_text(json.dumps(values))
    assert results.read(path).training[0].layers == []
    (run,) = read_runs(path)
    assert {m.key.benchmark for m in run.measurements} == {"training"}


def test_a_line_per_record(tmp_path: Path) -> None:
    results.write(tmp_path / "r.json", sample(seeds=1))
    lines = (tmp_path / "r.json").read_text().splitlines()
    assert sum(line.startswith('{"spec"') for line in lines) == 16 + 4


def test_files_of_one_machine_merge() -> None:
    kernels = make(environment("x"), [kernel("dense")], [])
    runs = make(environment("x"), [], [training("dense")])
    both = results.merge([kernels, runs])
    assert (both.kernels, both.training) == (kernels.kernels, runs.training)
    other = runs.model_copy(
        update={"environment": runs.environment.model_copy(update={"torch": "9"})}
    )
    with pytest.raises(
        InputError, match=r"torch: the files differ \('.*' and '9'\): no common page"
    ):
        results.merge([kernels, other])
