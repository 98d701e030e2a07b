"""results.json: the shipped schema, the round trip, and every kind of bad file."""

import json
from pathlib import Path

import jsonschema
import pytest

from actprune import InputError
from actprune_bench.measure.kernels import Shape, measure_kernels
from actprune_bench.records import results
from actprune_bench.records.environment import allocator, environment
from actprune_ci.readers.results import read as read_without_torch
from tests.samples import LAYERS, kernel, sample, training


def test_the_shipped_schema_is_that_of_the_records() -> None:
    assert results.SCHEMA_FILE.read_text() == results.json_schema()


def test_round_trip(tmp_path: Path) -> None:
    path, made = tmp_path / "results.json", sample()
    results.write(path, made)
    assert results.read(path) == made
    jsonschema.validate(json.loads(path.read_text()), json.loads(results.json_schema()))
    other = read_without_torch(path)
    assert len(other.kernels) == len(made.kernels)
    assert len(other.training) == len(made.training)


def test_what_is_measured_fits_the_schema() -> None:
    records = list(measure_kernels(["csr"], [Shape("fc", 64, 32, 16)], samples=2))
    made = results.make(environment("test"), records, [])
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
    def make(kernels: list[dict[str, object]], runs: list[dict[str, object]]) -> results.Results:
        return results.make(environment("test"), kernels, runs)

    with pytest.raises(
        InputError, match=r"results: kernels\[0\]\.op: should be 'compress'.*, got 'backward'"
    ):
        make([kernel("dense", op="backward")], [])
    lacking = training("dense")
    del lacking["data_digest"]
    with pytest.raises(InputError, match=r"results: training\[0\]\.data_digest: is missing"):
        make([], [lacking])
    with pytest.raises(
        InputError, match=r"results: training\[0\]\.steps: should be a valid integer, g"
    ):
        make([], [training("dense", steps="0")])
    with pytest.raises(
        InputError, match=r"results: kernels\[0\]\.spec: expected some text, got none"
    ):
        make([kernel("dense") | {"spec": ""}], [])
    with pytest.raises(InputError, match=r"median_ms: expected null where ok is false, got 11"):
        make([kernel("dense", ok=False)], [])
    with pytest.raises(InputError, match=r"ratio_to_dense: expected a number where ok is true"):
        make([kernel("dense", ratio_to_dense=None)], [])


def test_what_else_stands_in_a_record_is_kept(tmp_path: Path) -> None:
    made = results.make(environment("x"), [kernel("dense", joules=3)], [])
    results.write(tmp_path / "r.json", made)
    assert '"joules": 3' in (tmp_path / "r.json").read_text()
    assert results.read(tmp_path / "r.json") == made


def test_a_figure_that_is_not_finite_is_null() -> None:
    records = (
        [kernel("dense", rel_error=float("inf"))],
        [training("dense", grad_cosine=float("nan"))],
    )
    made = results.make(environment("x"), *records)
    assert (made.kernels[0].rel_error, made.training[0].grad_cosine) == (None, None)


def test_layers_are_of_this_version_and_older_files_lack_them(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results.write(path, results.make(environment("x"), [], [training("csr:sparsity=0.9")]))
    values = json.loads(path.read_text())
    assert [layer["layer"] for layer in values["training"][0]["layers"]] == LAYERS
    values["training"][0]["layers"][1]["bias"] = "much"
    path.write_text(json.dumps(values))
    with pytest.raises(
        InputError, match=r"training\[0\]\.layers\[1\]\.bias: should be a valid num"
    ):
        results.read(path)
    del values["training"][0]["layers"]
    path.write_text(json.dumps(values))
    assert results.read(path).training[0].layers == []
    assert len(read_without_torch(path).training) == 1


def test_a_line_per_record(tmp_path: Path) -> None:
    results.write(tmp_path / "r.json", sample(seeds=1))
    lines = (tmp_path / "r.json").read_text().splitlines()
    assert sum(line.startswith('{"spec"') for line in lines) == 16 + 4


def test_files_of_one_machine_merge() -> None:
    kernels = results.make(environment("x"), [kernel("dense")], [])
    runs = results.make(environment("x"), [], [training("dense")])
    both = results.merge([kernels, runs])
    assert (both.kernels, both.training) == (kernels.kernels, runs.training)
    other = runs.model_copy(
        update={"environment": runs.environment.model_copy(update={"torch": "9"})}
    )
    with pytest.raises(
        InputError, match=r"torch: the files differ \('.*' and '9'\): no common page"
    ):
        results.merge([kernels, other])


def test_the_environment_says_where_a_result_comes_from() -> None:
    found = environment("actprune compare --out x")
    assert found["command"] == "actprune compare --out x"
    assert str(found["date"]).endswith("+00:00")
    assert found["threads"] == 2
    assert len(str(found["fingerprint"])) == 12
    assert environment("other")["fingerprint"] == found["fingerprint"]


def test_the_allocators_settings_are_part_of_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    assert allocator({"PATH": "/bin", "MALLOC": "no"}) is None
    several = {"LD_PRELOAD": "libjemalloc.so", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    expected = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1 LD_PRELOAD=libjemalloc.so"
    assert allocator(several) == expected
    monkeypatch.setenv("MALLOC_TOP_PAD_", "64")
    assert "MALLOC_TOP_PAD_=64" in str(environment("x")["allocator"])
