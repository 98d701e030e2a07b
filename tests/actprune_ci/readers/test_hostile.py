"""Files that lie about their shape are refused in one line, and soon."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actprune_ci.model.runs import Run
from actprune_ci.readers import READERS, asv, read
from actprune_common.errors import InputError
from tests.actprune_ci.readers.tools import COMMIT, FILES

Change = Callable[[Any], object]


def refusal(path: Path, **told: str) -> str:
    with pytest.raises(InputError) as problem:
        read(path, **told)
    assert "\n" not in str(problem.value)
    return str(problem.value).removeprefix(f"{path}: ")


def changed(name: str, tmp_path: Path, change: Change) -> Path:
    document = json.loads(FILES[name].removeprefix(b"window.BENCHMARK_DATA = "))
    change(document)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document), "utf-8")
    return path


def first_row(document: Any, column: str) -> tuple[list[Any], int]:
    row = document["results"]["suite.time_plain"]
    return row, document["result_columns"].index(column)


def set_column(column: str, value: object) -> Change:
    def change(document: Any) -> None:
        row, i = first_row(document, column)
        row[i] = value

    return change


HOSTILE: list[tuple[str, Change, str]] = [
    ("pytest-benchmark", lambda d: d["benchmarks"][0]["stats"].update(data=5), "valid list, got 5"),
    ("pytest-benchmark", lambda d: d["commit_info"].update(dirty="no"), "valid boolean, got 'no'"),
    ("pytest-benchmark", lambda d: d.update(datetime="2026-13-01T00:00:00"), "expected ISO 8601"),
    ("pytest-benchmark", lambda d: d.update(datetime="9999-01-01T00:00:00"), "a year from 1970 to"),
    ("pytest-benchmark", lambda d: d.update(benchmarks=[]), "without a single measurement"),
    ("asv", lambda d: d.update(date=1e20), "date: expected milliseconds since 1970 that end"),
    ("asv", lambda d: d.update(date=float("nan")), "date: expected milliseconds since 1970"),
    ("asv", lambda d: d.update(date=True), "date: expected a valid number, got True"),
    ("asv", lambda d: d.update(version=True), "version: expected 1 or 2, got True"),
    ("asv", set_column("started_at", "soon"), "started_at: expected a valid number, got 'soon'"),
    ("asv", set_column("version", 3), "version: expected a valid string, got 3"),
    ("asv", set_column("samples", [7]), "samples[0]: expected a valid list, got 7"),
    ("asv", lambda d: d["result_columns"].append("result"), "expected names, each once, got"),
    ("asv", lambda d: d.update(commit_hash=COMMIT[:8]), "got '01234567': give --commit"),
    ("static", lambda d: d["environment"].update(dirty=1), "expected true or false, got 1"),
    ("static", lambda d: d.update(schema=True), "schema: expected 1, got True"),
    ("run", lambda d: d.update(date="soon"), "date: expected ISO 8601, got 'soon'"),
    ("run", lambda d: d.update(commit="1234567"), "got '1234567': give --commit"),
    ("data.js", lambda d: d["entries"]["Go"][0].update(date="soon"), "date: expected a valid num"),
]


@pytest.mark.parametrize(("name", "change", "told"), HOSTILE)
def test_what_lies_about_its_shape_is_refused_by_name(
    tmp_path: Path, name: str, change: Change, told: str
) -> None:
    message = refusal(changed(name, tmp_path, change))
    assert told in message
    assert "read as" not in message  # a reader foresees it


@pytest.mark.parametrize(
    ("cpu", "told"),
    [("a CPU", "a CPU"), ({"brand": "a CPU"}, "a CPU"), (5, "5"), (None, None), ([], None)],
)
def test_machine_info_may_say_its_processor_in_any_shape(
    tmp_path: Path, cpu: object, told: str | None
) -> None:
    path = changed("pytest-benchmark", tmp_path, lambda d: d["machine_info"].update(cpu=cpu))
    assert read(path)[0].environment.get("cpu") == told


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"commit_hash"', '"commit_hash": 1, "commit_hash"', "key 'commit_hash' stands twice"),
        ('"version": 2', '"version": 2' + "0" * 400, "not JSON (an integer of 401 digits)"),
        ('"version": 2', '"version": ' + "[" * 100_000, "not JSON ("),
        ('"tiny"', r'"\ud800"', "not JSON ('utf-8' codec can't encode"),
    ],
)
def test_json_that_two_programs_would_read_in_two_ways(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    text = json.dumps(json.loads(FILES["asv"]))
    assert old in text
    path = tmp_path / "x.json"
    path.write_text(text.replace(old, new, 1), "utf-8")
    assert told in refusal(path)


def test_a_pair_of_surrogates_is_text(tmp_path: Path) -> None:
    path = changed("asv", tmp_path, lambda d: d["params"].update(cpu="\U0001f600"))
    assert rb"\ud83d\ude00" in path.read_bytes()
    assert read(path)[0].environment["cpu"] == "\U0001f600"


def test_hashes_are_lowered_absent_or_refused_unless_one_is_given(tmp_path: Path) -> None:
    def commit_of(text: str, given: str | None = None) -> str:
        path = changed("pytest-benchmark", tmp_path, lambda d: d["commit_info"].update(id=text))
        return read(path, commit=given)[0].commit

    assert commit_of(COMMIT.upper()) == COMMIT
    assert commit_of("unversioned") == ""
    assert commit_of("abc1234", "F" * 40) == "f" * 40
    with pytest.raises(InputError) as problem:
        commit_of("ABC1234")
    told = "commit: expected a full hash, of 40 digits, got 'abc1234': give --commit"
    assert str(problem.value) == f"{tmp_path / 'x.json'}: {told}"


@pytest.mark.parametrize(
    ("told", "date"),
    [
        ("2026-01-02T05:04:05+02:00", "2026-01-02T03:04:05+00:00"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05+00:00"),
        ("2026-01-02T03:04:05", "2026-01-02T03:04:05+00:00"),
        ("2026-01-02T03:04:05.1234567890Z", "2026-01-02T03:04:05.123456+00:00"),
    ],
)
def test_dates_are_in_utc(tmp_path: Path, told: str, date: str) -> None:
    path = changed("run", tmp_path, lambda d: d.update(date=told))
    assert read(path)[0].date == date


def figures(run: Run) -> dict[str, tuple[str, str]]:
    return {m.key.metric: (m.status, m.detail) for m in run.measurements}


def test_a_figure_that_cannot_be_has_failed_and_the_others_stay(tmp_path: Path) -> None:
    def change(document: Any) -> None:
        document["records"][0] |= {"registers": True, "shared_bytes": -1, "spills": None}

    (run,) = read(changed("static", tmp_path, change))
    assert figures(run) == {
        "registers": ("failed", "expected finite numbers, got True"),
        "shared_bytes": ("failed", "expected bytes, none below 0, got -1"),
        "spills": ("failed", "expected finite numbers, got None"),
        "own_score": ("ok", ""),
    }
    (run,) = read(
        changed("hyperfine", tmp_path, lambda d: d["results"][0].update(times=[-1])), machine="m"
    )
    assert figures(run)["time"] == ("failed", "expected s, none below 0, got -1")


def test_an_ab_run_and_a_run_of_negative_bytes_are_refused(tmp_path: Path) -> None:
    def change(document: Any) -> None:
        (key,) = (each["key"] for each in document.get("pairs", document.get("measurements")))
        key.update(metric="memory", unit="bytes")
        for each in document.get("pairs", []):
            each["head"][1] = -1.0
        for each in document.get("measurements", []):
            each["samples"][1] = -1.0

    for name in ("ab", "run"):
        told = "a.time_x(spec=dense), memory: expected bytes, none below 0, got -1.0"
        assert refusal(changed(name, tmp_path, change)) == told


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    assert refusal(pipe) == "expected a regular file, got a pipe or a device"
    assert refusal(Path("/dev/zero")) == "expected a regular file, got a pipe or a device"
    assert refusal(tmp_path / ("x" * 300)).endswith("cannot be read (File name too long)")
    assert refusal(tmp_path / "gone").endswith("cannot be read (No such file or directory)")


def test_a_sparse_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert refusal(path) == "expected at most 67108864 bytes, got 1099511627776"


def test_pipes_beside_asv_results_are_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "machine"
    folder.mkdir()
    os.mkfifo(tmp_path / "benchmarks.json")
    os.mkfifo(folder / "machine.json")
    (folder / "x.json").write_bytes(FILES["asv"])
    assert len(read(folder / "x.json")[0].measurements) == 12


@pytest.mark.parametrize(
    "explained",
    [{"param_names": 5}, {"param_names": [1, 2]}, {"param_names": ["a", "a"]}, {"unit": 5}, 5],
)
def test_benchmarks_json_only_explains(tmp_path: Path, explained: object) -> None:
    folder = tmp_path / "machine"
    folder.mkdir()
    known = {"suite.Grid.time_sum": explained}
    (tmp_path / "benchmarks.json").write_text(json.dumps(known), "utf-8")
    (folder / "x.json").write_bytes(FILES["asv"])
    keys = [m.key for m in read(folder / "x.json")[0].measurements]
    (params, *_) = (key.params for key in keys if key.benchmark == "suite.Grid.time_sum")
    assert [name for name, _ in params] == ["param1", "param2"]


@pytest.mark.parametrize(
    "problem",
    [
        ValueError("a\nb"),
        TypeError(),
        KeyError("k"),
        OverflowError(),
        RecursionError(),
        MemoryError(),
    ],
)
def test_whatever_a_reader_stumbles_over_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    def stumble(document: object, path: Path) -> tuple[Run, ...]:
        raise problem

    monkeypatch.setattr(asv, "runs", stumble)
    path = tmp_path / "x.json"
    path.write_bytes(FILES["asv"])
    told = refusal(path)
    assert told.startswith(f"read as asv results: {type(problem).__name__}: ")
    assert "asv results" in READERS


def test_names_of_files_are_told_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a\n::error::b\x1b[31m\u2028.json"
    path.write_text("{", "utf-8")
    with pytest.raises(InputError) as problem:
        read(path)
    assert str(problem.value).startswith(
        f"{tmp_path}/a\\n::error::b\\x1b[31m\\u2028.json: not JSON ("
    )


def test_commit_is_refused_for_what_tells_sides_or_several(tmp_path: Path) -> None:
    for name in ("ab", "data.js"):
        path = tmp_path / "x.json"
        path.write_bytes(FILES[name])
        told = "--commit: this file tells several commits or sides of its own"
        assert refusal(path, commit="e" * 40) == told
    path.write_bytes(FILES["run"].replace(b'"asv"', b'"ab"'))
    assert refusal(path, commit="e" * 40) == told


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("asv", set_column("params", [1] * 20_000), "params[0]: expected a valid list, got 1"),
        ("static", lambda d: d.update(records=[1] * 20_000), "records[0]: expected a valid dict"),
        ("results", lambda d: d.update(kernels=[1] * 20_000), "kernels[0]: expected an object"),
        ("nvbench", lambda d: d.update(benchmarks=[1] * 20_000), "benchmarks[0]: expected a valid"),
        (
            "run",
            lambda d: d["measurements"][0].update(samples=["a"] * 20_000),
            "20000 values of a wrong type",
        ),
        ("asv", set_column("params", [["1", "2"]] * 20_000), "expected 1099511627776 values, got"),
    ],
)
def test_a_list_of_wrong_items_is_refused_at_its_first(
    tmp_path: Path, name: str, change: Change, told: str
) -> None:
    assert told in refusal(changed(name, tmp_path, change))
