"""pytest-benchmark's JSON (--benchmark-json): times in seconds, and the numbers of extra_info."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from actprune_ci.model.reading import validated
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.readers.fields import flat, full_hash, measured, unit_of

NAMES = ("spec", "layer", "shape", "op", "dtype", "device", "backend", "model", "seed")
"""The entries of extra_info that say what was measured: they become parameters."""


class _Benchmark(BaseModel):
    fullname: str
    params: dict[str, Any] | None = None
    param: str | None = None
    extra_info: dict[str, Any] = {}
    stats: dict[str, Any]


class _BenchmarkFile(BaseModel):
    machine_info: dict[str, Any]
    commit_info: dict[str, Any] = {}
    benchmarks: list[_Benchmark]
    datetime: str
    version: str


def runs(document: Mapping[str, Any], path: Path) -> tuple[Run, ...]:
    """The one run of the file; its machine is the node's name, as asv's is."""
    file = validated(path, _BenchmarkFile.model_validate, document)
    info = file.machine_info
    cpu = info.get("cpu") or {}
    facts = {
        "cpu": cpu.get("brand_raw"),
        "num_cpu": cpu.get("count"),
        "python": info.get("python_version"),
        "os": info.get("system"),
        "arch": info.get("machine"),
        "kernel": info.get("release"),
        "commit_date": file.commit_info.get("time"),
    }
    environment = {**flat(facts), "pytest-benchmark": file.version}
    measurements = [m for benchmark in file.benchmarks for m in _measurements(benchmark)]
    commit, dirty = full_hash(file.commit_info.get("id")), bool(file.commit_info.get("dirty"))
    about = commit, dirty, file.datetime, str(info.get("node") or "unknown")
    return (Run("pytest-benchmark", *about, environment, tuple(measurements)),)


def _measurements(benchmark: _Benchmark) -> list[Measurement]:
    name, params = _name(benchmark.fullname), _params(benchmark)
    stats, extra = benchmark.stats, benchmark.extra_info
    samples = stats.get("data")
    note = "" if samples else f"median of {stats.get('rounds')} samples"
    times = measured(Key(name, params), samples or [stats.get("median")], note)
    figures = {
        metric: value
        for metric, value in extra.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and metric not in NAMES
    }
    return [
        times,
        *(measured(Key(name, params, m, unit_of(m)), [value]) for m, value in figures.items()),
    ]


def _name(fullname: str) -> str:
    """`tests/bench/test_ops.py::TestX::test_sum[10]` as `tests.bench.test_ops.TestX.test_sum`."""
    place, _, function = fullname.partition("[")[0].partition("::")
    return ".".join([place.removesuffix(".py").replace("/", "."), *function.split("::")])


def _params(benchmark: _Benchmark) -> tuple[tuple[str, str], ...]:
    given = benchmark.params or {}
    if any("UNSERIALIZABLE" in str(value) for value in given.values()):
        given = {"param": benchmark.param}
    told = {name: benchmark.extra_info[name] for name in NAMES if name in benchmark.extra_info}
    return tuple((name, str(value)) for name, value in {**given, **told}.items())
