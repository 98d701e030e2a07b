"""The readers of other people's tools: what their files say becomes figures, and nothing else."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from actprune_ci.model.metrics import Metric
from actprune_ci.model.runs import Measurement, Run
from actprune_ci.readers import READERS, read
from actprune_common.errors import InputError
from tests.actprune_ci.readers import tools
from tests.actprune_ci.readers.tools import COMMIT, DATE, FILES


def read_text(text: str | bytes, tmp_path: Path, machine: str | None = "m") -> tuple[Run, ...]:
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path, machine=machine)


def read_document(document: object, tmp_path: Path, machine: str | None = "m") -> Run:
    (run,) = read_text(json.dumps(document), tmp_path, machine)
    return run


def by_key(run: Run) -> dict[tuple[str, str], Measurement]:
    return {(str(m.key), m.key.metric): m for m in run.measurements}


def refused(document: object, tmp_path: Path, machine: str | None = "m") -> str:
    with pytest.raises(InputError) as problem:
        read_document(document, tmp_path, machine)
    return str(problem.value).removeprefix(f"{tmp_path / 'a.json'}: ")


def test_every_reader_has_a_file_here(tmp_path: Path) -> None:
    used = set()
    for text in FILES.values():
        document = tmp_path / "a.json"
        document.write_bytes(text)
        used |= {run.source for run in read(document, machine="m")}
    # actprune has three readers, asv and A/B runs another source each
    assert len(used) == len(READERS) - 1


def test_asv_of_version_1(tmp_path: Path) -> None:
    run = read_document(tools.ASV_1, tmp_path, None)
    assert (run.source, run.machine, run.commit) == ("asv", "old", COMMIT)
    assert run.date == "2026-01-02T03:04:06+00:00"
    assert run.environment["env_name"] == "py3.8-numpy1.21"
    figures = by_key(run)
    assert figures["s.time_plain", "time"].samples == (0.25,)
    assert figures["s.time_failed", "time"].status == "failed"
    assert figures["s.K.time_grid(param1=1, param2=a)", "time"].samples == (1.0,)
    assert figures["s.K.time_grid(param1=2, param2=a)", "time"].status == "failed"
    assert figures["s.K.time_lost(param1=2)", "time"].status == "failed"
    told = figures["s.time_stats", "time"]
    assert (told.samples, told.key.version) == ((0.5,), "abc")
    assert told.detail == "median of 10 samples, quartiles 0.45 and 0.55"


def test_asv_names_the_version_of_a_benchmark_and_the_gaps_of_a_grid(tmp_path: Path) -> None:
    document = json.loads(FILES["asv"])
    assert all(m.key.version for m in read_document(document, tmp_path).measurements)
    axes = [[str(i) for i in range(100)]] * 6
    row = [None, axes]  # the columns result and params
    document["results"]["s.time_x"] = row
    assert refused(document, tmp_path).startswith("results: expected values, or at most 100000")
    document["results"]["s.time_x"] = [[1.0], axes]
    assert refused(document, tmp_path).startswith(
        "results.s.time_x: result: expected 1000000000000 "
    )
    del document["results"]["s.time_x"]
    document["results"] |= {f"s.time_{i}": [None, axes[:2]] for i in range(11)}
    assert refused(document, tmp_path).startswith("results: expected values, or at most 100000")


def test_asv_a_long_name_in_every_point_of_a_grid_is_refused(tmp_path: Path) -> None:
    values = [str(i) for i in range(1000)]
    document = json.loads(FILES["asv"])
    document["results"] = {"s.time_" + "x" * 100_000: [[1.0] * 1000, [values]]}
    assert refused(document, tmp_path).startswith("expected names of at most 16777216 bytes, got 1")


def test_pytest_benchmark_of_old_of_windows_and_of_two_groups(tmp_path: Path) -> None:
    run = read_document(tools.PYTEST_2, tmp_path, None)
    assert (run.commit, run.dirty, run.machine) == (COMMIT, True, "h")
    assert (run.date, run.environment["cpu"]) == ("2015-08-15T03:02:02.123456+00:00", "a CPU")
    figures = by_key(run)
    assert list(figures) == [
        ("tests.deep.test_x.test_a(group=one)", "time"),
        ("tests.deep.test_x.test_a(group=two)", "time"),
        ("tests.test_x.test_b(param=1)", "time"),
        ("tests.test_x.test_b(param=2)", "time"),
    ]
    assert [m.status for m in figures.values()] == ["ok", "ok", "failed", "failed"]
    assert run.measurements[3].detail == "stats: null: it failed in pytest-benchmark"


def test_pytest_benchmark_params_null_have_their_case(tmp_path: Path) -> None:
    document = json.loads(FILES["pytest-benchmark"])
    for benchmark in document["benchmarks"]:
        benchmark["params"] = None
    names = {str(m.key) for m in read_document(document, tmp_path).measurements}
    assert "test_tiny.test_sum(param=10, spec=dense)" in names


def test_pytest_benchmark_declares_what_its_metrics_mean(tmp_path: Path) -> None:
    document = json.loads(FILES["pytest-benchmark"])
    meaning = {"images_per_second": {"direction": "higher", "unit": "1/s"}}
    extra = document["benchmarks"][0]["extra_info"]
    extra |= {"images_per_second": 5, "metrics": meaning}
    run = read_document(document, tmp_path)
    assert run.metrics == {"images_per_second": Metric("higher", "1/s")}
    (figure,) = (m for m in run.measurements if m.key.metric == "images_per_second")
    assert (figure.key.unit, figure.samples) == ("1/s", (5.0,))
    extra["images_per_second"] = True
    (figure,) = (
        m
        for m in read_document(document, tmp_path).measurements
        if m.key.metric == "images_per_second"
    )
    assert (figure.status, figure.detail) == ("failed", "expected finite numbers, got True")
    other = {"images_per_second": {"direction": "lower"}}
    document["benchmarks"][1]["extra_info"] = {"metrics": other}
    where = "benchmarks[1].extra_info.metrics: images_per_second: "
    assert refused(document, tmp_path) == f"{where}expected one meaning, another benchmark differs"
    meaning["images_per_second"]["direction"] = "up"
    assert "images_per_second.direction: expected 'lower', 'higher' or 'none', got 'up'" in refused(
        document, tmp_path
    )


def test_static_and_results_declare_what_their_metrics_mean(tmp_path: Path) -> None:
    run = read_document(tools.STATIC, tmp_path)
    assert run.metrics == {"own_score": Metric("higher", "points", exact=True)}
    units = {m.key.metric: m.key.unit for m in run.measurements}
    assert units == {"registers": "1", "shared_bytes": "bytes", "own_score": "points"}
    results = json.loads(FILES["results"]) | {"metrics": {"x": {"direction": "higher"}}}
    results["training"][0]["x"] = 5
    run = read_document(results, tmp_path)
    assert run.metrics == {"x": Metric("higher")}
    (own,) = (m for m in run.measurements if m.key.metric == "x")
    assert (own.key.benchmark, own.key.unit, own.samples) == ("training", "1", (5.0,))
    results["metrics"]["x"]["way"] = "up"
    assert refused(results, tmp_path).startswith("metrics.x.way: ")


def test_github_action_benchmark_a_run_per_entry(tmp_path: Path) -> None:
    go, own = read_text(FILES["data.js"] + b";\n", tmp_path, None)
    assert (go.source, go.commit, go.date, go.dirty) == (
        "github-action-benchmark",
        COMMIT,
        DATE,
        False,
    )
    assert go.machine == "github-action-benchmark"
    assert go.environment["commit_date"] == "2026-01-01T00:00:00+09:00"
    figures = by_key(go)
    timed = figures["Fib(suite=Go)", "time"]
    assert (timed.samples, timed.key.unit, timed.detail) == ((551 * 1e-9,), "s", "± 5")
    assert figures["Rate(suite=Go)", "throughput"].key.unit == "ops/sec"
    assert figures["Odd(suite=Go)", "value"].key.unit == "auxMetricUnits"
    assert (own.commit, own.metrics) == ("f" * 40, {"bigger_is_better": Metric("higher")})
    twice = by_key(own)["Twice(suite=Own)", "bigger_is_better"]
    assert twice.detail == "expected once in an entry, stands 2 times"


def test_criterion_messages(tmp_path: Path) -> None:
    (run,) = read_text(FILES["criterion"], tmp_path)
    (timed,) = run.measurements
    assert (str(timed.key), timed.key.unit) == ("fib/20", "s")
    assert timed.samples == pytest.approx((1e-7, 1.1e-7), rel=1e-12)
    cycles = [{**tools.MESSAGES[0], "unit": "cycles"}]
    (run,) = read_text(tools.lines(cycles), tmp_path)
    assert [(m.key.metric, m.key.unit) for m in run.measurements] == [("value", "cycles")]
    broken = tools.lines([*tools.MESSAGES, {"reason": "benchmark-complete", "id": 3}])
    with pytest.raises(InputError, match=r"line 3: id: expected a valid string, got 3"):
        read_text(broken, tmp_path)
    with pytest.raises(InputError, match=r"line 2: not JSON"):
        read_text(tools.lines(tools.MESSAGES)[:-10], tmp_path)


def test_criterion_folders(tmp_path: Path) -> None:
    (tmp_path / "benchmark.json").write_text(json.dumps(tools.BENCHMARK))
    timed = read_document(tools.SAMPLE, tmp_path).measurements[0]
    assert timed.samples == pytest.approx((1e-7, 1.1e-7), rel=1e-12)
    assert str(timed.key) == "fib/20"
    timed = read_document(tools.ESTIMATES, tmp_path).measurements[0]
    assert (timed.samples, timed.detail) == ((105.0 * 1e-9,), "median of criterion's samples")
    zero = read_document({**tools.SAMPLE, "iters": [0, 1]}, tmp_path).measurements[0]
    assert zero.detail == "expected one iteration or more in each sample"
    short = read_document({**tools.SAMPLE, "iters": [1]}, tmp_path).measurements[0]
    assert short.detail == "expected a count per value, got 1 and 2"
    (tmp_path / "benchmark.json").unlink()
    with pytest.raises(InputError, match=r"benchmark.json: cannot be read"):
        read_document(tools.SAMPLE, tmp_path)


def test_google_benchmark_repetitions_counters_and_errors(tmp_path: Path) -> None:
    run = read_document(tools.GOOGLE, tmp_path, None)
    assert (run.machine, run.date, run.commit) == ("a-host", DATE, "")
    assert run.environment["num_cpus"] == "8"
    figures = by_key(run)
    assert figures["BM_Copy/8", "time"].samples == (2.0 * 1e-6, 3.0 * 1e-6)
    assert figures["BM_Copy/8", "cpu_time"].samples == (1.0 * 1e-6, 1.5 * 1e-6)
    assert figures["BM_Copy/8", "bytes_per_second"].key.unit == "bytes/s"
    assert figures["BM_Copy/8", "Foo"].samples == (3.0, 3.0)
    assert figures["BM_Sort", "time"].detail == "median of repetitions"
    assert figures["BM_Sort", "time"].samples == (7 * 1e-9,)
    broken = figures["BM_Broken", "time"]
    assert (broken.status, broken.detail) == ("failed", "no\\nfile")
    assert run.metrics["bytes_per_second"] == Metric("higher", "bytes/s")
    assert len(figures) == 4 + 2 + 1


def test_google_benchmark_of_before_run_type(tmp_path: Path) -> None:
    rows = [{"name": name, "real_time": 2.0, "cpu_time": 2.0} for name in ("B", "B", "B_mean")]
    run = read_document({**tools.GOOGLE, "benchmarks": rows}, tmp_path)
    assert by_key(run)["B", "time"].samples == (2e-9, 2e-9)
    odd = [{**rows[0], "time_unit": "weeks"}]
    run = read_document({**tools.GOOGLE, "benchmarks": odd}, tmp_path)
    assert run.measurements[0].detail == "expected a unit of time, got 'weeks'"


def test_nvbench_states_axes_and_skips(tmp_path: Path) -> None:
    run = read_document(tools.NVBENCH, tmp_path)
    figures = by_key(run)
    name = "copy(n=1024, device=A GPU)"
    assert figures[name, "time"].samples == (1.5e-05,)
    rate = "nv/cold/bw/global/bytes_per_second"
    assert (figures[name, rate].key.unit, run.metrics[rate].direction) == ("bytes/s", "higher")
    assert figures[name, "own"].samples == (3.0,)
    assert "own" not in run.metrics
    skipped = figures["copy(n=1073741824, device=A GPU)", "time"]
    assert (skipped.status, skipped.detail) == ("skipped", "too large")
    assert len(figures) == 4


def test_nvbench_two_devices_of_one_name_stay_apart(tmp_path: Path) -> None:
    document: dict[str, Any] = json.loads(FILES["nvbench"])
    document["devices"] = [{"id": i, "name": "A GPU"} for i in (0, 1)]
    state = document["benchmarks"][0]["states"][0]
    document["benchmarks"][0]["states"] = [state, {**state, "device": 1}]
    names = {str(m.key) for m in read_document(document, tmp_path).measurements}
    assert names == {"copy(n=1024, device=A GPU #0)", "copy(n=1024, device=A GPU #1)"}


def test_hyperfine_of_both_versions(tmp_path: Path) -> None:
    run = read_document(tools.HYPERFINE, tmp_path)
    figures = by_key(run)
    timed = figures["sleep 1(n=1)", "time"]
    assert (timed.samples, timed.detail) == ((0.9, 1.1), "1 of 2 executions failed")
    assert figures["sleep 1(n=1)", "user_time"].samples == (0.01,)
    assert figures["sleep 1(n=1)", "peak_memory"].samples == (1000.0, 2000.0)
    run = read_document(tools.HYPERFINE_2, tmp_path)
    assert (run.date, run.environment["os"]) == ("2026-01-02T03:04:05.123456+00:00", "linux")
    figures = by_key(run)
    assert figures["one second", "time"].samples == (1.0, 1.5)
    assert figures["one second", "peak_memory"].key.unit == "bytes"


def test_a_file_without_machine_or_date_must_be_told_or_is_as_old_as_itself(tmp_path: Path) -> None:
    for document in (tools.HYPERFINE, tools.NVBENCH):
        told = "machine: expected a name, the file has none: give --machine"
        assert refused(document, tmp_path, None) == told
    path = tmp_path / "a.json"
    os.utime(path, (1767323045, 1767323045))
    (run,) = read(path, machine="m")
    assert (run.date, run.environment["date_from"]) == (DATE, "the file's last change")
