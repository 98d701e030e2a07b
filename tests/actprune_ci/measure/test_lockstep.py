"""Two sides in lockstep: never at once, in an order both draw alike, not without the other."""

import os
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from actprune_ci.measure.pairing import PairedFigure, together
from actprune_ci.measure.runner.lockstep import AloneError, Lockstep
from actprune_ci.model.runs import Key


def test_turns_never_overlap_and_either_side_goes_first(tmp_path: Path) -> None:
    spans: list[tuple[float, float, int]] = []

    def side(number: int) -> None:
        lockstep = Lockstep(str(tmp_path / "meet"), number, seed=7, patience=10)

        def call() -> None:
            begin = time.perf_counter()
            time.sleep(0.001)
            spans.append((begin, time.perf_counter(), number))

        for _ in range(40):
            lockstep.take(call)
        lockstep.close()

    sides = [threading.Thread(target=side, args=(number,)) for number in (1, 0)]
    for thread in sides:
        thread.start()
    for thread in sides:
        thread.join(20)
    spans.sort()
    assert len(spans) == 80
    assert all(end <= begin for (_, end, _), (begin, _, _) in pairwise(spans))
    rounds = [[who for _, _, who in spans[i : i + 2]] for i in range(0, 80, 2)]
    assert all(sorted(each) == [0, 1] for each in rounds)
    assert {each[0] for each in rounds} == {0, 1}
    assert not (tmp_path / "meet").exists()


@pytest.mark.parametrize("side", [0, 1])
def test_a_side_whose_other_does_not_come_says_so(tmp_path: Path, side: int) -> None:
    with pytest.raises(AloneError, match="the other side did not come"):
        Lockstep(str(tmp_path / "meet"), side, seed=0, patience=0.05)


@pytest.mark.parametrize("side", [0, 1])
def test_a_side_whose_other_ends_says_so(tmp_path: Path, side: int) -> None:
    path = str(tmp_path / "meet")
    other = threading.Thread(target=lambda: Lockstep(path, 1 - side, seed=0, patience=10).close())
    other.start()
    lockstep = Lockstep(path, side, seed=0, patience=10)
    other.join()
    with pytest.raises(AloneError, match="the other side has ended"):
        lockstep.take(lambda: None)
    lockstep.close()


class Stub:
    """A server that answers as told, first in turn and then alone."""

    def __init__(self, in_turn: dict[str, object], alone: dict[str, object] | None = None) -> None:
        self.in_turn, self.alone = in_turn, alone

    def begin(self, benchmark: object, params: object, plan: object, *lockstep: object) -> object:
        answer = self.in_turn if lockstep else self.alone
        assert answer is not None
        return lambda: dict(answer)


def figure() -> PairedFigure:
    return PairedFigure(Key("b", ()), {"name": "b", "kind": "time"}, (), plan={"samples": 3})


def test_a_pair_is_the_median_of_the_ratios_of_neighbours() -> None:
    base = Stub({"status": "ok", "value": 2.0, "samples": [1.0, 2.0, 40.0], "slowed": []})
    head = Stub({"status": "ok", "value": 3.3, "samples": [1.1, 2.2, 40.0], "slowed": []})
    one, two = together(figure(), (base, head), 0)  # type: ignore[arg-type]
    assert (one["value"], two["value"]) == (2.0, pytest.approx(2.2))


def test_the_failure_of_one_side_is_not_the_other_s() -> None:
    fine = {"status": "ok", "value": 1.0, "samples": [1.0], "slowed": []}
    waiting, broken = {"status": "alone", "detail": ""}, {"status": "failed", "detail": "why"}
    one, two = together(figure(), (Stub(waiting, fine), Stub(broken)), 0)  # type: ignore[arg-type]
    assert (one["status"], two["status"], two["detail"]) == ("ok", "failed", "why")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_both_sides_share_a_core() -> None:
    program = "from actprune_ci.measure.runner.lockstep import share_core\nimport os\n"
    program += "share_core({})\nprint(*os.sched_getaffinity(0))"
    cores = sorted(os.sched_getaffinity(0))
    for seed in range(3):
        words = [sys.executable, "-c", program.format(seed)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [str(cores[seed % len(cores)])]
