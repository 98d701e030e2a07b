"""A small file of each tool that the harness reads, of the structure that the tool documents."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actprune_ci.model.runs import AbRun, Key, Measurement, Pairs, Run
from actprune_ci.model.serialise import to_json

DATA = Path(__file__).parents[1] / "data"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
DATE = "2026-01-02T03:04:05+00:00"
MILLISECONDS = 1767323045000

ASV_1 = {
    "version": 1,
    "commit_hash": COMMIT,
    "date": MILLISECONDS,
    "python": "3.8",
    "requirements": {"numpy": "1.21"},
    "params": {"machine": "old", "cpu": "a CPU"},
    "results": {
        "s.time_plain": 0.25,
        "s.time_failed": None,
        "s.K.time_grid": {"params": [["1", "2"], ["'a'"]], "result": [1.0, None]},
        "s.K.time_lost": {"params": [["1", "2"]], "result": None},
        "s.time_stats": {
            "result": [0.5],
            "stats": [{"ci_99": [0.4, 0.6], "q_25": 0.45, "q_75": 0.55, "repeat": 10, "number": 1}],
        },
    },
    "benchmark_version": {"s.time_stats": "abc"},
    "started_at": {"s.time_stats": MILLISECONDS + 1000},
    "profiles": {},
}
PYTEST_2 = {
    "version": "2.5.0",
    "datetime": "2015-08-15T03:02:02.123456",
    "machine_info": {"node": "h", "cpu": "a CPU", "machine": "x86_64", "python_version": "3.4.3"},
    "commit_info": {"id": COMMIT, "dirty": True},
    "benchmarks": [
        {
            "name": "test_a",
            "fullname": "tests\\deep\\test_x.py::test_a",
            "group": group,
            "options": {},
            "stats": {"median": 0.5, "rounds": 3},
        }
        for group in ("one", "two")
    ]
    + [
        {"name": f"test_b[{n}]", "fullname": f"tests/test_x.py::test_b[{n}]", "stats": None}
        for n in (1, 2)
    ],
}
DATA_JS = {
    "lastUpdate": MILLISECONDS,
    "repoUrl": "https://example.org/x",
    "entries": {
        "Go": [
            {
                "commit": {"id": COMMIT, "timestamp": "2026-01-01T00:00:00+09:00", "message": "m"},
                "date": MILLISECONDS,
                "tool": "go",
                "benches": [
                    {"name": "Fib", "value": 551, "unit": "ns/op", "range": "± 5", "extra": "x"},
                    {"name": "Rate", "value": 20, "unit": "ops/sec"},
                    {"name": "Odd", "value": 4.5, "unit": "auxMetricUnits"},
                ],
            }
        ],
        "Own": [
            {
                "commit": {"id": "f" * 40},
                "date": MILLISECONDS + 1000,
                "tool": "customBiggerIsBetter",
                "benches": [
                    {"name": "Score", "value": 7, "unit": "points"},
                    {"name": "Twice", "value": 7, "unit": "points"},
                    {"name": "Twice", "value": 8, "unit": "points"},
                ],
            }
        ],
    },
}
MESSAGES: list[dict[str, Any]] = [
    {
        "reason": "benchmark-complete",
        "id": "fib/20",
        "report_directory": "target/criterion/reports/fib/20",
        "iteration_count": [10, 20],
        "measured_values": [1000.0, 2200.0],
        "unit": "ns",
        "throughput": [{"per_iteration": 1, "unit": "elements"}],
        "typical": {"estimate": 105.0, "lower_bound": 100.0, "upper_bound": 110.0, "unit": "ns"},
    },
    {"reason": "group-complete", "group_name": "fib", "benchmarks": ["fib/20"]},
]
SAMPLE = {"sampling_mode": "Linear", "iters": [10.0, 20.0], "times": [1000.0, 2200.0]}
ESTIMATES = {
    name: {"confidence_interval": {}, "point_estimate": 105.0, "standard_error": 1.0}
    for name in ("mean", "median", "median_abs_dev", "slope", "std_dev")
}
BENCHMARK = {"group_id": "fib", "function_id": "20", "value_str": None, "full_id": "fib/20"}


def _repetition(index: int, time: float) -> dict[str, Any]:
    return {
        "name": "BM_Copy/8",
        "family_index": 0,
        "run_name": "BM_Copy/8",
        "run_type": "iteration",
        "repetitions": 2,
        "repetition_index": index,
        "threads": 1,
        "iterations": 100,
        "real_time": time,
        "cpu_time": time / 2,
        "time_unit": "us",
        "bytes_per_second": 8e6,
        "Foo": 3.0,
    }


GOOGLE = {
    "context": {
        "date": "2026-01-02T05:04:05+02:00",
        "host_name": "a-host",
        "executable": "./bench",
        "num_cpus": 8,
        "load_avg": [0.1],
        "caches": [{"type": "Data", "level": 1, "size": 32768}],
        "library_build_type": "release",
    },
    "benchmarks": [
        _repetition(0, 2.0),
        _repetition(1, 3.0),
        {
            **_repetition(0, 2.5),
            "name": "BM_Copy/8_median",
            "run_type": "aggregate",
            "aggregate_name": "median",
        },
        {
            "name": "BM_Sort_median",
            "run_name": "BM_Sort",
            "run_type": "aggregate",
            "aggregate_name": "median",
            "real_time": 7,
            "cpu_time": 7,
            "time_unit": "ns",
        },
        {
            "name": "BM_Broken",
            "run_name": "BM_Broken",
            "run_type": "iteration",
            "error_occurred": True,
            "error_message": "no\nfile",
        },
    ],
}


def _summary(tag: str, hint: str | None, value: Any) -> dict[str, Any]:
    data = [{"name": "value", "type": "float64", "value": value}]
    return {"tag": tag, "name": "x", "description": "x", "hint": hint, "data": data}


NVBENCH = {
    "meta": {"argv": ["./bench"], "version": {"json": {"major": 1, "minor": 0, "patch": 0}}},
    "devices": [{"id": 0, "name": "A GPU", "sm_version": 900}],
    "benchmarks": [
        {
            "name": "copy",
            "index": 0,
            "devices": [0],
            "axes": [{"name": "n", "type": "int64", "flags": "pow2", "values": []}],
            "states": [
                {
                    "name": "Device=0 n=2^10",
                    "device": 0,
                    "axis_values": [{"name": "n", "type": "int64", "value": "1024"}],
                    "summaries": [
                        _summary("nv/cold/time/gpu/mean", "duration", "1.5e-05"),
                        _summary("nv/cold/bw/global/bytes_per_second", "byte_rate", "2e9"),
                        _summary("nv/cold/sample_size", "sample_size", "100"),
                        _summary("own", None, "3"),
                    ],
                    "is_skipped": False,
                },
                {
                    "name": "Device=0 n=2^30",
                    "device": 0,
                    "axis_values": [{"name": "n", "type": "int64", "value": "1073741824"}],
                    "summaries": None,
                    "is_skipped": True,
                    "skip_reason": "too large",
                },
            ],
        }
    ],
}
HYPERFINE = {
    "results": [
        {
            "command": "sleep 1",
            "mean": 1.0,
            "stddev": 0.1,
            "median": 1.0,
            "user": 0.01,
            "system": 0.02,
            "min": 0.9,
            "max": 1.1,
            "times": [0.9, 1.1],
            "memory_usage_byte": [1000, 2000],
            "exit_codes": [0, 1],
            "parameters": {"n": "1"},
        }
    ]
}
HYPERFINE_2 = {
    "schema_version": 2,
    "metadata": {
        "hyperfine_version": "2.0.0",
        "start_time": "2026-01-02T03:04:05.123456789Z",
        "platform": {"os": "linux", "architecture": "x86_64"},
    },
    "primary_metric": "time_wall_clock",
    "results": [
        {
            "command": "sleep 1",
            "name": "one second",
            "measurements": [
                {
                    "time_wall_clock": {"value": time, "unit": "second"},
                    "memory_peak_resident": {"value": 1000.0, "unit": "byte"},
                    "exit_code": 0,
                }
                for time in (1.0, 1.5)
            ],
        }
    ],
}
STATIC = {
    "schema": 1,
    "environment": {"date": DATE, "fingerprint": "m", "commit": COMMIT, "triton": "3.9.0"},
    "records": [
        {
            "kernel": "bsr gather",
            "variant": "*fp32 BM=32 warps=4",
            "specs": ["bsr:block=32"],
            "arch": 90,
            "num_warps": 4,
            "registers": 72,
            "shared_bytes": 16384,
            "own_score": 7,
        }
    ],
    "metrics": {"own_score": {"direction": "higher", "unit": "points", "exact": True}},
}
_TIMED = Key("a.time_x", (("spec", "dense"),))
AB = AbRun(COMMIT, "f" * 40, DATE, "m", {}, {}, (Pairs(_TIMED, (1.0, 2.0), (1.5, 2.5)),))
RUN = Run("asv", COMMIT, False, DATE, "m", {}, (Measurement(_TIMED, (1.0, 2.0)),))


def lines(messages: list[dict[str, Any]]) -> str:
    """Messages as cargo-criterion streams them."""
    return "".join(f"{json.dumps(message)}\n" for message in messages)


FILES: Mapping[str, bytes] = {
    "asv": (DATA / "asv/tiny/5ba301d5-existing-py_usr_bin_python.json").read_bytes(),
    "asv-1": json.dumps(ASV_1).encode(),
    "pytest-benchmark": (DATA / "pytest-benchmark.json").read_bytes(),
    "pytest-benchmark-2": json.dumps(PYTEST_2).encode(),
    "results": (DATA / "results.json").read_bytes(),
    "static": json.dumps(STATIC).encode(),
    "ab": to_json(AB).encode(),
    "run": to_json(RUN).encode(),
    "data.js": f"window.BENCHMARK_DATA = {json.dumps(DATA_JS)}".encode(),
    "criterion": lines(MESSAGES).encode(),
    "google-benchmark": json.dumps(GOOGLE).encode(),
    "nvbench": json.dumps(NVBENCH).encode(),
    "hyperfine": json.dumps(HYPERFINE).encode(),
    "hyperfine-2": json.dumps(HYPERFINE_2).encode(),
}
"""What is read by itself, by a name for tests."""
