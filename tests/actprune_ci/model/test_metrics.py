"""The registry of metrics has all that actprune writes, and guesses from units alone."""

from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest

from actprune_bench.gpu_static.compilation import CompiledKernel
from actprune_ci import readers
from actprune_ci.model.metrics import METRICS, Metric, meaning, of_unit
from actprune_ci.readers import actprune, static
from actprune_common.errors import InputError
from benchmarks import suite

ROOT = Path(__file__).parents[3]
CHOSEN = {"kernel", "variant", "specs", "dtype", *static.OPTIONS}


def test_every_figure_of_a_static_file_is_registered() -> None:
    figures = {field.name for field in fields(CompiledKernel)} - CHOSEN
    assert figures - set(METRICS) == set()
    assert all(METRICS[name].exact for name in figures)


def test_every_figure_of_a_results_file_is_registered() -> None:
    named = {*actprune.KERNEL_FIGURES, *actprune.TRAINING_FIGURES}
    assert {name.replace("_peak_bytes", "_peak") for name in named} - set(METRICS) == set()


def test_every_figure_of_the_suite_is_registered() -> None:
    tracked = {
        name.removeprefix("track_")
        for each in vars(suite).values()
        if isinstance(each, type)
        for name in vars(each)
        if name.startswith("track_")
    }
    assert len(tracked) > 5
    assert tracked - set(METRICS) == set()


def test_every_figure_of_the_published_results_is_registered() -> None:
    read, found = 0, set[str]()
    for path in sorted((ROOT / "docs/results").rglob("*.json")):
        with suppress(InputError):  # not all of them are results of a run
            runs = readers.read(path)
            read += 1
            found |= {m.key.metric for run in runs for m in run.measurements}
    assert read >= 5
    assert found - set(METRICS) == set()


def test_exactly_one_meaning_counts() -> None:
    own, policy = {"time": Metric("higher", "s")}, {"time": Metric("none", "s")}
    assert meaning("time", "s").direction == "lower"
    assert meaning("time", "s", own).direction == "higher"
    assert meaning("time", "s", policy, own).direction == "none"
    assert not meaning("anything", "1").known
    assert meaning("throughput", "images/s").unit == "images/s"


@pytest.mark.parametrize(
    ("unit", "direction"),
    [
        *[(unit, "lower") for unit in ("s", "ms", "ns", "seconds", "bytes", "MiB")],
        *[(unit, "higher") for unit in ("images/s", "it/s", "GB/s", "items/sec", "tokens/second")],
        *[(unit, "none") for unit in ("", "1", "unit", "%", "s/it", "ratio", "bytes/value")],
    ],
)
def test_a_unit_tells_a_direction_or_nothing(unit: str, direction: str) -> None:
    assert of_unit(unit).direction == direction


def test_half_a_point_is_none_of_a_fraction() -> None:
    assert meaning("accuracy", "%").smallest == 0.5
    assert meaning("accuracy_delta", "%").smallest == 0.5
    for unit in ("1", "unit", ""):  # 0.81 to 0.41 are fractions, or nobody knows
        assert meaning("accuracy", unit).smallest is None
        assert meaning("accuracy", unit).direction == "higher"
    assert meaning(
        "top5", "1", {"top5": Metric("higher", scale="difference", smallest=0.1)}
    ).smallest
