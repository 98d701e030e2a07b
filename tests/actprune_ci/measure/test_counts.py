"""Counts by callgrind: recorded dumps are read; where valgrind is, real ones are made."""

import shutil
import sys
from pathlib import Path

import pytest

from actprune_ci.measure import counts
from actprune_ci.measure.counts import Counts, count, counted
from actprune_ci.model.serialise import read_ab
from tests.actprune_ci.measure.test_ab import Repository, ab

needs_valgrind = pytest.mark.skipif(
    shutil.which("valgrind") is None, reason="valgrind is not installed"
)
DUMP = """# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 4545
cmd:  /usr/bin/python3 -c import sys
part: {part}

desc: I1 cache: 32768 B, 64 B, 8-way associative
desc: Timerange: Basic block 9122 - 9170
desc: Trigger: {trigger}

positions: line
events: Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw
summary: {summary}

fn=(1) call
12 5
"""


def dump(trigger: str, summary: str) -> str:
    return DUMP.format(part=1, trigger=trigger, summary=summary)


def test_recorded_dumps() -> None:
    found = counted(
        [
            dump("Client Request: -", "3041 857 509 13 7 1 0 5 1"),
            dump("Client Request: -", "3035 855 509"),  # zeros at the end are left out
            dump("Client Request: -", "3035 855 509"),
            dump("Client Request: 0", "882382 257003 140555 38679 12945 2994 4750 3750 956"),
            dump("Client Request: 0", "881036 256528 140251 38607 12896 2982 0 23 128"),
            dump("Client Request: 0", "879860 256302 140148 38568 12884 3010 0 23 95"),
            dump("Client Request: 1", "3034"),  # less than nothing is nothing
            dump("Program termination", "7 7 7"),
        ]
    )
    assert found == {"0": Counts(881036 - 3035, 38607 + 12896 + 2982), "1": Counts()}


def test_a_dump_that_says_nothing_is_named() -> None:
    with pytest.raises(RuntimeError, match="callgrind: a dump without totals: '# callgrind"):
        counted([dump("Client Request: 0", "1").replace("events", "vents")])


def test_where_it_cannot_be_had_nothing_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotImplementedError, match=r"^valgrind is not installed$"):
        count({"one": ("pass", "")})
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(NotImplementedError, match="on Linux with x86-64 alone"):
        count({"one": ("pass", "")})


def test_a_figure_that_is_not_there_says_why() -> None:
    assert Counts(5, 3).figure("cache_misses") == 3
    with pytest.raises(NotImplementedError, match="no such format"):
        Counts(skipped="no such format").figure("instructions")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        Counts(failed="ZeroDivisionError: division by zero").figure("instructions")


CALLS = {
    "one": ("sum(numbers)", "numbers = list(range(1000))"),
    "two": ("sum(numbers)\nsum(numbers)", "numbers = list(range(1000))"),
    "nothing": ("pass", ""),
    "skipped": ("pass", "raise NotImplementedError('not here')"),
    "failed": ("1 / 0", ""),
}


@needs_valgrind
def test_counts_repeat_and_are_those_of_the_call_alone() -> None:
    once, again = count(CALLS), count(CALLS)
    assert list(once) == list(CALLS)
    assert once["skipped"] == Counts(skipped="not here")
    assert once["failed"] == Counts(failed="ZeroDivisionError: division by zero")
    one, two = once["one"].instructions, once["two"].instructions
    assert 10_000 < one < 200_000
    assert two == pytest.approx(2 * one, rel=0.01)
    assert once["nothing"].instructions < 200
    for name in ("one", "two"):
        assert again[name].instructions == pytest.approx(once[name].instructions, rel=1e-4)


SUITE = """
from actprune_ci.measure.counts import count

class Executed:
    params = ["work", "idle", "absent"]
    deterministic = True

    def setup_cache(self):
        return count({name: (f"{name}()", f"from tiny import {name}") for name in ("work", "idle")}
            | {"absent": ("pass", "raise NotImplementedError('not of this commit')")})

    def setup(self, counts, name):
        counts[name].figure("instructions")

    def track_instructions(self, counts, name):
        return counts[name].figure("instructions")

    track_instructions.unit = "1"
"""
WORK = "def work():\n    return sum(range({}))\ndef idle():\n    pass\n"


@needs_valgrind
def test_an_ab_run_counts_each_sides_own_code_once(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repository")
    base = repository.commit(WORK.format(1000), SUITE)
    head = repository.commit(WORK.format(2000))
    done, out = ab(repository, base, head)
    assert done.exit_code == 0, done.output
    found = {pair.key.params[0][1]: pair for pair in read_ab(out).pairs}
    work, idle, absent = found["work"], found["idle"], found["absent"]
    assert (len(work.base), work.key.metric) == (1, "instructions")
    assert 1.9 < work.head[0] / work.base[0] < 2.4  # small numbers are made without allocation
    assert idle.head[0] == pytest.approx(idle.base[0], abs=50)
    assert (absent.status, absent.detail) == ("skipped", "not of this commit")


@needs_valgrind
def test_a_process_that_ends_early_is_a_failure() -> None:
    with pytest.raises(RuntimeError, match="valgrind: code 3: "):
        count({"one": ("pass", "import os; os._exit(3)")})
    with pytest.raises(RuntimeError, match=r"valgrind: not done after 0\.2 s"):
        count({"one": ("pass", "")}, timeout=0.2)


def test_without_valgrind_there_is_nobody_to_ask() -> None:
    if sys.platform != "linux":
        pytest.skip("needs Linux")
    with pytest.raises(RuntimeError, match="expected to run under valgrind"):
        counts.count_here("nothing.json")
