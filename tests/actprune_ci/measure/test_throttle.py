"""GPUs that are slowed down, by a fake NVML: what is seen, thrown away and counted."""

import ctypes
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any

import pytest

from actprune_ci.measure.pairing import PairedFigure, discarded, record, together
from actprune_ci.measure.runner import throttle
from actprune_ci.measure.runner.measure import measure
from actprune_ci.measure.runner.suite import Benchmark
from actprune_ci.measure.runner.throttle import Watch
from actprune_ci.model.runs import Key, Note

HOT, IDLE, SET, CAP, SYNC = 0x40, 0x1, 0x2, 0x4, 0x10


class Nvml:
    """NVML as C hands it out: the bits of each card are a series, the last ones forever."""

    def __init__(self, *cards: Sequence[int], name: str = throttle.ASKS[0]) -> None:
        self.cards = [chain(card, repeat(card[-1])) for card in cards]
        self.asked = 0
        setattr(self, name, self.bits)
        self.nvmlInit_v2 = self.init
        self.nvmlDeviceGetCount_v2 = self.count
        self.nvmlDeviceGetHandleByIndex_v2 = self.handle

    def init(self) -> int:
        return 0

    def count(self, count: Any) -> int:
        count._obj.value = len(self.cards)
        return 0

    def handle(self, i: int, gpu: Any) -> int:
        gpu._obj.value = i + 1
        return 0

    def bits(self, gpu: ctypes.c_void_p, said: Any) -> int:
        self.asked += 1
        assert gpu.value is not None
        said._obj.value = next(self.cards[gpu.value - 1])
        return 0


@pytest.mark.parametrize("name", throttle.ASKS)
def test_any_card_that_is_slowed_down_is_seen(name: str) -> None:
    watch = Watch(Nvml([0], [IDLE, HOT, 0x8, 0x20, 0x80, SET], name=name))
    assert [watch.reasons() for _ in range(6)] == [0, HOT, 0x8, 0x20, 0x80, 0]


@pytest.mark.parametrize("bits", [IDLE, SET, SYNC, CAP, 0x100, IDLE | SET | SYNC])
def test_what_is_no_slowdown(bits: int) -> None:
    assert Watch(Nvml([bits])).reasons() == 0
    assert Watch(Nvml([bits | HOT])).reasons() == HOT


def test_without_nvml_or_with_one_that_fails_nothing_is_seen() -> None:
    assert Watch(SimpleNamespace()).reasons() == 0
    broken = Nvml([HOT])
    broken.nvmlInit_v2 = lambda: 9
    assert Watch(broken).reasons() == 0
    silent = Nvml([HOT])
    setattr(silent, throttle.ASKS[0], lambda *_: 15)
    assert Watch(silent).reasons() == 0


def of(name: str, function: Callable[..., Any]) -> Benchmark:
    return Benchmark(name, name.partition("_")[0], [function])


def test_samples_of_a_time_are_watched_each() -> None:
    plan = {"warm": 1, "number": 2, "samples": 4}
    # asked before and after each: the second begins, the third ends under a slowdown
    nvml = Nvml([0, 0, HOT, 0, 0, HOT, 0, 0])
    found = measure(of("time_it", lambda: None), (), plan, watch=Watch(nvml))
    assert found["slowed"] == [1, 2]
    assert len(found["samples"]) == 4
    assert nvml.asked == 8


def test_a_tracked_figure_is_watched_as_one() -> None:
    assert measure(of("track_it", lambda: 5), (), None, watch=Watch(Nvml([0])))["slowed"] == []
    assert measure(of("track_it", lambda: 5), (), None, watch=Watch(Nvml([0, 8])))["slowed"] == [0]
    assert measure(of("track_it", lambda: 5), (), None)["slowed"] == []


class Side:
    """A server that gives one answer."""

    def __init__(self, samples: Sequence[float], slowed: Sequence[int]) -> None:
        self.answer = {"status": "ok", "value": 99.0, "samples": list(samples)}
        self.answer["slowed"] = list(slowed)

    def begin(self, *_: object) -> Callable[[], dict[str, Any]]:
        return lambda: dict(self.answer)


def figure(kind: str = "time", unit: str = "s") -> PairedFigure:
    benchmark = {"name": "b", "kind": kind, "deterministic": False}
    return PairedFigure(Key("b", (), unit=unit), benchmark, (), plan={"samples": 3})


def test_a_sample_that_either_side_had_spoilt_counts_on_neither() -> None:
    one = figure()
    sides = Side([1.0, 50.0, 2.0], [1]), Side([2.0, 50.0, 70.0], [2])
    record(one, *together(one, sides, 0))  # type: ignore[arg-type]
    assert (one.base, one.head, one.discarded) == ([1.0], [2.0], 2)
    text = "2 samples of 1 figures thrown away: a GPU was slowed down"
    assert discarded([one, figure()]) == [Note("samples-discarded", text)]
    assert discarded([figure()]) == []


def test_a_pair_without_a_good_sample_is_measured_again() -> None:
    one = figure()
    sides = Side([1.0, 1.0], [0]), Side([2.0, 2.0], [1])
    record(one, *together(one, sides, 0))  # type: ignore[arg-type]
    assert (one.base, one.closed, one.discarded) == ([], False, 2)
    assert one.pairs().detail == "a GPU was slowed down during every sample"
    fine = Side([1.0, 1.0], []), Side([2.0, 2.0], [])
    record(one, *together(one, fine, 0))  # type: ignore[arg-type]
    assert (one.base, one.head, one.pairs().status) == ([1.0], [2.0], "ok")


@pytest.mark.parametrize(
    ("kind", "unit", "kept"),
    [
        ("track", "bytes", True),
        ("track", "%", True),
        ("peakmem", "bytes", True),
        ("track", "images/s", False),
        ("track", "ms", False),
    ],
)
def test_figures_that_depend_on_no_clock_count_all_the_same(
    kind: str, unit: str, kept: bool
) -> None:
    one, answer = figure(kind, unit), {"status": "ok", "value": 5.0, "slowed": []}
    record(one, {**answer, "slowed": [0]}, answer)
    assert (len(one.base), one.discarded) == ((1, 0) if kept else (0, 1))
