"""Files of every tool, changed at random: each is recorded or set aside, soon, and nothing raises.

A seed per file makes every case repeatable: `mutated(FILES[name], f"{name} {number}")`.
"""

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest

from actprune_ci.store import store
from actprune_ci.store.record import record
from tests.actprune_ci.readers.tools import FILES

ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        1.5,
        -0.0,
        1e20,
        -1e20,
        1e308,
        10**300,
        10**400,
        2**63,
        -(2**63),
    ),
    *(
        float("nan"),
        float("inf"),
        "",
        "a",
        "1",
        "x" * 100_000,
        "\ud800",
        "a\nb\x1b[31m",
        "\0",
        "'''",
    ),
    *([], {}, [[]], [None], [1, 2, 3], {"value": 1}, "2026-01-02", "9999-12-31T23:59:59+00:00"),
    *(
        "0001-01-01T00:00:00Z",
        "abc1234",
        "A" * 40,
        "((((" * 300,
        "-" * 5000 + "1",
        "..",
        "a/b",
        "[0]",
    ),
    *([[str(i) for i in range(100)]] * 6, list(range(1000)), {str(i): i for i in range(100)}),
)
DEEP = "[" * 3000 + "]" * 3000
PLACEHOLDER = "a place for something deep"
SECONDS = 10
"""For one file; the usual one takes a hundredth of a second."""
MEMORY = 2**20
"""Kilobytes by which the process may grow."""


def place(document: Any, random: Random) -> tuple[Any, Any]:
    """A (container, key) of a document that is not empty: as often near its top as deep inside."""
    container = document
    while True:
        key = random.choice(
            list(container) if isinstance(container, dict) else range(len(container))
        )
        inner = container[key]
        if not isinstance(inner, dict | list) or not inner or random.random() < 0.3:
            return container, key
        container = inner


def of_document(text: bytes, random: Random) -> bytes:
    """The text with one to three of its values replaced, removed, doubled or moved."""
    start = max(text.find(b"{"), 0)
    lines = text[start:].splitlines() if text.count(b"\n{") else [text[start:]]
    documents = [json.loads(line) for line in lines] if text.startswith(b'{"reason"') else None
    document = documents if documents is not None else json.loads(text[start:])
    for _ in range(random.randint(1, 3)):
        if not document:
            break
        container, key = place(document, random)
        act = random.choice(("odd", "odd", "odd", "delete", "deep", "double", "swap", "rename"))
        if act == "odd":
            container[key] = deepcopy(random.choice(ODD))
        elif act == "delete":
            del container[key]
        elif act == "deep":
            container[key] = PLACEHOLDER
        elif act == "double" and isinstance(container, list):
            container.insert(key, container[key])
        elif act == "rename" and isinstance(container, dict):
            container[random.choice(("", "x" * 10_000, "\ud800", "a\nb"))] = container.pop(key)
        else:
            other, at = place(document, random)
            container[key] = deepcopy(other[at])
    dumped = list(map(json.dumps, document)) if documents is not None else [json.dumps(document)]
    made = "\n".join(dumped).replace(f'"{PLACEHOLDER}"', DEEP)
    if random.random() < 0.1 and '": ' in made:  # a key that stands twice
        ends = [i for i in range(len(made)) if made.startswith('": ', i)]
        end = random.choice(ends)
        key = made[made.rfind('"', 0, end) : end + 1]
        made = f"{made[: end + 3]}0, {key}: {made[end + 3 :]}"
    return text[:start] + made.encode()


def of_bytes(text: bytes, random: Random) -> bytes:
    """The text with bits flipped, or a piece cut out, doubled or overwritten."""
    made, at = bytearray(text), random.randrange(len(text))
    end = min(at + random.randint(1, 50), len(text))
    act = random.choice(("flip", "cut", "double", "end", "noise"))
    if act == "flip":
        for _ in range(random.randint(1, 8)):
            made[random.randrange(len(made))] ^= 1 << random.randrange(8)
    elif act == "cut":
        del made[at:end]
    elif act == "double":
        made[at:at] = made[at:end]
    elif act == "end":
        del made[at:]
    else:
        made[at:end] = random.randbytes(end - at)
    return bytes(made)


def mutated(text: bytes, seed: str) -> bytes:
    random = Random(seed)
    return (of_document if random.random() < 0.7 else of_bytes)(text, random)


class Hang(BaseException):
    """No Exception, so that nothing that it interrupts takes it for a bad file."""


@contextmanager
def bounded(seconds: float, seed: str) -> Iterator[None]:
    def end(*_: object) -> None:
        raise Hang(f"{seed}: {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def survive(name: str, numbers: range, tmp_path: Path) -> None:
    into, path = tmp_path / "store", tmp_path / "file.json"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    good = tmp_path / "good.json"
    good.write_bytes(FILES["run"])
    for number in numbers:
        seed = f"{name} {number}"
        path.write_bytes(mutated(FILES[name], seed))
        with bounded(SECONDS, seed):
            outcome, beside = record([path, good], into, machine="m")
        assert beside.status in ("recorded", "duplicate"), seed
        if outcome.status == "set aside":
            assert outcome.reason.startswith(f"{path}: "), seed
            assert outcome.reason.isprintable(), seed
            assert "read as" not in outcome.reason, (seed, outcome.reason)  # a reader foresaw it
            assert "the store cannot hold" not in outcome.reason, (seed, outcome.reason)
        else:
            runs = [store.read(file) for file in outcome.files]
            assert all(run.measurements for run in runs), seed
    assert [each for each in into.rglob("*") if each.name.startswith(".")] == []
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert grown < MEMORY, f"{name}: {grown} kB"


@pytest.mark.parametrize("name", FILES)
def test_a_few_changed_files_of_each_tool(name: str, tmp_path: Path) -> None:
    survive(name, range(5), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_hundreds_of_changed_files_of_each_tool(name: str, tmp_path: Path) -> None:
    survive(name, range(5, 305), tmp_path)


def test_the_changes_are_changes_and_many_of_them_are_read(tmp_path: Path) -> None:
    path, kinds = tmp_path / "file.json", set()
    made = {mutated(FILES["asv-1"], f"kinds {number}") for number in range(40)}
    assert len(made) > 30
    for each in made:
        path.write_bytes(each)
        kinds.add(record([path], tmp_path / "store")[0].status)
    assert kinds >= {"recorded", "set aside"}
