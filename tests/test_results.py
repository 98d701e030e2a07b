"""results.json: the shipped schema, the round trip, and every kind of bad file."""

import json
from pathlib import Path

import jsonschema
import pytest

from actprune import InputError, results
from actprune.environment import environment
from actprune.measuring.kernels import Shape, measure_kernels
from actprune_ci.results import read as read_without_torch
from tests.samples import kernel, sample, training


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
        ("[]", r"results\.json: expected results of schema 1, got schema None"),
        ('{"schema": 2}', r"results\.json: expected results of schema 1, got schema 2"),
        ('{"schema": 1}', r"results\.json: environment: field required"),
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

    with pytest.raises(InputError, match=r"results: kernels\.0\.op: input should be 'compress'"):
        make([kernel("dense", op="backward")], [])
    lacking = training("dense")
    del lacking["data_digest"]
    with pytest.raises(InputError, match=r"results: training\.0\.data_digest: field required"):
        make([], [lacking])
    with pytest.raises(InputError, match=r"results: training\.0\.more: extra inputs are not perm"):
        make([], [training("dense", more=1)])


def test_the_environment_says_where_a_result_comes_from() -> None:
    found = environment("actprune compare --out x")
    assert found["command"] == "actprune compare --out x"
    assert str(found["date"]).endswith("+00:00")
    assert found["threads"] == 2
    assert len(str(found["fingerprint"])) == 12
    assert environment("other")["fingerprint"] == found["fingerprint"]
