"""pytest-benchmark's JSON (--benchmark-json), from version 2.5 on: times in seconds, and the
numbers of extra_info.

What these numbers mean, a benchmark may say itself:
`benchmark.extra_info["metrics"] = {"images_per_second": {"direction": "higher", "unit": "1/s"}}`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from actprune_ci.model.metrics import Metric
from actprune_ci.model.reading import Several, validated
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.readers.fields import commit_of, declared, flat, measured, unit_of
from actprune_common.errors import InputError

NAMES = ("spec", "layer", "shape", "op", "dtype", "device", "backend", "model", "seed")
"""The entries of extra_info that say what was measured: they become parameters."""
Params = tuple[tuple[str, str], ...]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Stats(_Strict):
    data: list[Any] | None = None
    median: Any = None
    rounds: int | None = None


class _Benchmark(_Strict):
    fullname: str
    group: str | None = None
    params: dict[str, Any] | None = None
    param: str | None = None
    extra_info: dict[str, Any] = {}
    stats: _Stats | None
    """null where the benchmark failed."""


class _Commit(_Strict):
    id: str | None = None
    dirty: bool | None = None
    time: str | None = None


class _BenchmarkFile(_Strict):
    machine_info: dict[str, Any]
    commit_info: _Commit = _Commit()
    benchmarks: Several[_Benchmark]
    datetime: str
    version: str


def runs(document: Mapping[str, Any], path: Path) -> tuple[Run, ...]:
    """The one run of the file; its machine is the node's name, as asv's is."""
    file = validated(path, _BenchmarkFile.model_validate, document)
    info, commit = file.machine_info, file.commit_info
    cpu = info.get("cpu")
    cpu = cpu if isinstance(cpu, dict) else {"brand": cpu}
    facts = {
        "cpu": cpu.get("brand_raw", cpu.get("brand")),
        "num_cpu": cpu.get("count"),
        "python": info.get("python_version"),
        "os": info.get("system"),
        "arch": info.get("machine"),
        "kernel": info.get("release"),
        "commit_date": commit.time,
    }
    environment = {**flat(facts), "pytest-benchmark": file.version}
    metrics = _metrics(file.benchmarks, path)
    measurements = [
        measurement
        for benchmark, params in zip(file.benchmarks, _distinct(file.benchmarks), strict=True)
        for measurement in _measurements(benchmark, params, metrics)
    ]
    node = info.get("node")
    about = commit_of(commit.id), bool(commit.dirty), file.datetime
    machine = node if isinstance(node, str) else ""
    return (Run("pytest-benchmark", *about, machine, environment, tuple(measurements), metrics),)


def _metrics(benchmarks: Sequence[_Benchmark], path: Path) -> dict[str, Metric]:
    """What all benchmarks together declare. Raises InputError where two disagree."""
    made: dict[str, Metric] = {}
    for i, benchmark in enumerate(benchmarks):
        where = f"{path}: benchmarks[{i}].extra_info.metrics"
        for name, metric in declared(benchmark.extra_info.get("metrics"), where).items():
            if made.setdefault(name, metric) != metric:
                raise InputError(
                    f"{where}: {name}: expected one meaning, another benchmark differs"
                )
    return made


def _measurements(
    benchmark: _Benchmark, params: Params, metrics: Mapping[str, Metric]
) -> list[Measurement]:
    name, stats = _name(benchmark.fullname), benchmark.stats
    timed = Key(name, params)
    if stats is None:
        return [Measurement(timed, (), "failed", "stats: null: it failed in pytest-benchmark")]
    note = "" if stats.data else f"median of {stats.rounds} samples"
    made = [measured(timed, stats.data or [stats.median], note)]
    for metric, value in benchmark.extra_info.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if metric in metrics or (number and metric not in NAMES):
            unit = metrics[metric].unit if metric in metrics else ""
            made.append(measured(Key(name, params, metric, unit or unit_of(metric)), [value]))
    return made


def _name(fullname: str) -> str:
    """`tests/bench/test_ops.py::TestX::test_sum[10]` as `tests.bench.test_ops.TestX.test_sum`."""
    place, _, function = fullname.partition("[")[0].partition("::")
    place = place.replace("\\", "/").removesuffix(".py").replace("/", ".")
    return ".".join([place, *function.split("::")])


def _distinct(benchmarks: Sequence[_Benchmark]) -> list[Params]:
    """The parameters of each benchmark; where two would be one figure, their groups as well, and
    then what stands in the brackets of their names.
    """
    names = [_name(benchmark.fullname) for benchmark in benchmarks]
    params = [_params(benchmark) for benchmark in benchmarks]
    more: dict[str, list[str | None]] = {
        "group": [benchmark.group for benchmark in benchmarks],
        "param": [benchmark.param or _bracketed(benchmark.fullname) for benchmark in benchmarks],
    }
    for name, values in more.items():
        count = Counter(zip(names, params, strict=True))
        for i, value in enumerate(values):
            if count[names[i], params[i]] > 1 and value and name not in dict(params[i]):
                params[i] = (*params[i], (name, value))
    return params


def _params(benchmark: _Benchmark) -> Params:
    given = benchmark.params
    param = benchmark.param or _bracketed(benchmark.fullname)
    if given is None or any("UNSERIALIZABLE" in str(value) for value in given.values()):
        given = {"param": param} if param else {}
    told = {name: benchmark.extra_info[name] for name in NAMES if name in benchmark.extra_info}
    return tuple((name, str(value)) for name, value in {**given, **told}.items())


def _bracketed(fullname: str) -> str:
    """What stands in the brackets of a name: the case, as pytest calls it."""
    return fullname.partition("[")[2].removesuffix("]")
