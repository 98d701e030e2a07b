"""Plans of graphs as text: what is written is read back, and what is wrong in it is told."""

import doctest
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actprune.formats import FORMATS
from actprune.graph import cells, plan, reading
from actprune.graph.plan import WAYS, Entry, GraphPlan, Plan
from actprune.graph.reading import load, parse_plan
from actprune.saved.operators import KINDS
from actprune_common.errors import InputError

CHOICES = (*WAYS, "codes:bits=4", "codes:bits=2,group=32", "bsr:block=1x32,sparsity=0.9")
MIB = 2**20
WORDS = st.text(max_size=8) | st.sampled_from(["-", "graph", "tensor", "#", '"', "a b", "\x85"])
BYTES = st.integers(0, 2**60)
FLOATS = st.floats(allow_nan=False)
ENTRIES = st.builds(
    Entry,
    WORDS.filter(bool),
    WORDS,
    WORDS,
    st.lists(st.sampled_from(KINDS), unique=True).map(tuple),
    BYTES,
    st.sampled_from(CHOICES),
    BYTES,
    FLOATS,
    st.floats(0),
)
GRAPHS = st.builds(
    GraphPlan,
    WORDS.filter(bool),
    st.lists(ENTRIES, unique_by=lambda entry: entry.name, max_size=5).map(tuple),
    st.none() | BYTES,
    *(BYTES, BYTES, BYTES, BYTES),
    FLOATS,
    st.lists(BYTES, max_size=3).map(tuple),
)
PLANS = st.lists(GRAPHS, unique_by=lambda graph: graph.key, max_size=3).map(tuple).map(Plan)


def entry(name: str, choice: str = "keep", **given: object) -> Entry:
    made = Entry(name, "", "aten.addmm.default", ("linear",), 4 * MIB, choice, MIB, 1e-3, 1e-4)
    return replace(made, **given)  # type: ignore[arg-type]


def plan_of(*entries: Entry, key: str = "8c1f") -> Plan:
    return Plan((GraphPlan(key, entries, 3 * MIB, 8 * MIB, 2 * MIB, 9 * MIB, 4 * MIB, 0.01),))


TEXT = """\
actprune graph plan 1

graph  8c1f
budget 3145728

tensor  choice        bytes    module
addmm   codes:bits=4  4194304  fc1
gelu    recompute     4194304  act
"""


@given(PLANS)
def test_what_is_written_is_read_back_but_for_the_timelines(made: Plan) -> None:
    text = made.text()
    found = parse_plan(text)
    assert found == Plan(tuple(replace(graph, timeline=()) for graph in made.graphs))
    assert found.text() == text


def test_a_file_is_read_as_it_was_saved(tmp_path: Path) -> None:
    made = plan_of(entry("addmm"), entry("gelu", "recompute"))
    made.save(tmp_path / "model.plan")
    assert load(str(tmp_path / "model.plan")) == made
    edited = (tmp_path / "model.plan").read_text().replace("recompute ", "codes ")
    (tmp_path / "model.plan").write_bytes(b"\xef\xbb\xbf" + edited.replace("\n", "\r\n").encode())
    assert load(tmp_path / "model.plan") == plan_of(entry("addmm"), entry("gelu", "codes:bits=4"))


def test_the_text_has_a_line_for_each_tensor_in_aligned_columns() -> None:
    lines = plan_of(entry("addmm"), entry("gelu", "codes:bits=4", module="mlp.act")).text()
    assert lines.splitlines()[-3:] == [
        "tensor        choice               bytes          held       seconds         error"
        "  for           producer            module",
        "addmm         keep               4194304       1048576         0.001        0.0001"
        "  linear        aten.addmm.default  -",
        "gelu          codes:bits=4       4194304       1048576         0.001        0.0001"
        "  linear        aten.addmm.default  mlp.act",
    ]


def test_another_choice_changes_one_line() -> None:
    made = plan_of(entry("addmm"), entry("gelu"))
    before = made.text().splitlines()
    after = parse_plan(made.text().replace("gelu          keep", "gelu  codes:bits=8"))
    changed = [line for line in after.text().splitlines() if line not in before]
    assert [line.split()[:2] for line in changed] == [["gelu", "codes:bits=8"]]


def test_numbers_of_numpy_are_numbers() -> None:
    made = plan_of(entry("a", nbytes=np.int64(5), seconds=np.float32(0.5), error=np.float64(0.25)))
    assert parse_plan(made.text()) == plan_of(entry("a", nbytes=5, seconds=0.5, error=0.25))


def test_spaces_comments_and_what_informs_do_not_matter() -> None:
    assert parse_plan(TEXT).graphs[0] == GraphPlan(
        "8c1f",
        (
            Entry("addmm", "fc1", "", (), 4194304, "codes:bits=4", 0, 0.0, 0.0),
            Entry("gelu", "act", "", (), 4194304, "recompute", 0, 0.0, 0.0),
        ),
        *(3145728, 0, 0, 0, 0, 0.0),
    )
    loose = TEXT.replace("\n", " # as torch has it\n\n  ").replace("  ", "\t ")
    assert parse_plan(loose) == parse_plan(TEXT)
    bare = "actprune graph plan 1\ngraph 8c1f\nchoice tensor\ncodes\taddmm#fast\nrecompute gelu"
    found = parse_plan(bare).graphs[0]
    assert [(each.name, each.choice) for each in found.entries] == [
        ("addmm", "codes:bits=4"),
        ("gelu", "recompute"),
    ]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *((way, way) for way in WAYS),
        ("dense", "keep"),
        ("bsr:sparsity=0.90", "bsr:block=32x32,sparsity=0.9"),
        ("derivative:bits=4", "derivative:bits=4"),
    ],
)
def test_a_choice_is_read_to_its_one_form(written: str, read: str) -> None:
    assert parse_plan(TEXT.replace("recompute", written)).graphs[0].entries[1].choice == read


FACTS = "budget, dense, held, dense_peak, peak, gap"
NO_TITLE = "expected 'actprune graph plan 1' in the first line, got an empty text"
HEADING = "tensor choice bytes held seconds error for producer module"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "recompute",
            "codez",
            "8: choice: expected one of keep, recompute, offload, bits, narrow, -, or a format of "
            f"{', '.join(FORMATS)}, derivative, got 'codez'",
        ),
        ("recompute", "codes:bits=5", "8: bits: expected one of 8, 4, 2, got 5"),
        (
            "recompute",
            "codes:bytes=5",
            "8: spec: codes takes the options bits, group; got 'bytes' in 'codes:bytes=5'",
        ),
        ("gelu ", "addmm", "8: tensor: 'addmm' is given twice, first in line 7"),
        ("gelu ", '""', "8: tensor: expected a word, got nothing"),
        ("gelu    recompute     4194304  act", "gelu", "8: choice: expected a word, got nothing"),
        ("4194304  act", "4MiB  act", "8: bytes: expected whole bytes, got '4MiB'"),
        ("4194304  act", "-4  act", "8: bytes: expected whole bytes, got '-4'"),
        ("act", "act or", "8: line: expected 4 cells or less, got 5"),
        ("act", '"act', """8: cell: expected a word, or text between two quotes, got '"act'"""),
        ("act", '"a\\x"', r"""8: cell: expected text in JSON's quotes, got '"a\\x"'"""),
        ("bytes", "size", f"6: heading: expected one of {HEADING.replace(' ', ', ')}, got 'size'"),
        ("bytes", "choice", "6: heading: 'choice' is given twice"),
        (
            "choice        bytes",
            "bytes",
            "6: heading: expected tensor and choice among it, got 'tensor bytes module'",
        ),
        ("bytes    module\n", "error\na keep -1\n#", "7: error: expected 0 or more, got '-1'"),
        ("bytes    module\n", "error\na keep nan\n#", "7: error: expected 0 or more, got 'nan'"),
        (
            "budget",
            "limit",
            f"4: line: expected {FACTS}, or the heading {HEADING}, got 'limit'",
        ),
        ("budget 3145728", "gap wide", "4: gap: expected a number, got 'wide'"),
        ("budget 3145728", "budget", "4: budget: expected one number, got ''"),
        ("budget 3145728", "held -", "4: held: expected whole bytes, got '-'"),
        ("budget 3145728", "held 1\nheld 1", "5: graph: 'held' is given twice, first in line 4"),
        ("graph  8c1f", "graph", "3: graph: expected one key, got ''"),
        ("graph  8c1f", "graph a b", "3: graph: expected one key, got 'a b'"),
        ("graph  8c1f\n", "", "3: line: expected graph and its key, got 'budget'"),
        ("act", "act\ngraph 8c1f", "9: graph: '8c1f' is given twice, first in line 3"),
        ("plan 1", "plan 2", "1: version: expected 1, got '2'"),
        (
            "actprune graph plan 1\n",
            "",
            "2: first line: expected 'actprune graph plan 1', got 'graph 8c1f'",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(old: str, new: str, problem: str) -> None:
    assert TEXT.count(old) >= 1
    with pytest.raises(InputError) as told:
        parse_plan(new.join(TEXT.rsplit(old, 1)), "a.plan")
    assert str(told.value) == f"a.plan:{problem}"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", f": {NO_TITLE}"),
        (b"\n # nothing\n", f": {NO_TITLE}"),
        (b"\x93NUMPY\x01", ": expected UTF-8 text (invalid start byte)"),
        (
            b"PK\x03\x04" + bytes(40),
            r":1: first line: expected 'actprune graph plan 1', got "
            + repr("PK\x03\x04" + "\0" * 40)[:60],
        ),
    ],
)  # fmt: skip
def test_what_is_no_plan_is_told(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "a.plan"
    path.write_bytes(content)
    with pytest.raises(InputError) as told:
        load(path)
    assert str(told.value) == f"{path}{problem}"


def test_a_file_that_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.plan: cannot be read \(No such file"):
        load(tmp_path / "none.plan")
    with pytest.raises(InputError, match=r"cannot be written \(Is a directory\)"):
        Plan().save(tmp_path)


def found(text: str) -> Plan | str:
    """The plan, or the error."""
    try:
        return parse_plan(text)
    except InputError as problem:
        return str(problem)


@given(st.text())
def test_any_text_gets_an_error_of_one_line(text: str) -> None:
    told = found(text)
    assert isinstance(told, str)
    assert told.isprintable()


@given(st.lists(st.sampled_from([*TEXT.split(" "), "\n", '"', "#", "-"])).map(" ".join))
def test_a_plan_in_disorder_is_a_plan_or_an_error_of_one_line(text: str) -> None:
    told = found(f"actprune graph plan 1\ngraph 1\n{text}")
    if isinstance(told, str):
        assert told.isprintable()
    else:
        assert parse_plan(told.text()) == told


def test_the_same_tensor_of_each_block_is_one_line() -> None:
    blocks = [entry(f"addmm_{i}", module=f"blocks.{i}.fc1") for i in range(3)]
    other = entry("addmm_3", "codes:bits=4", module="blocks.3.fc1", kinds=())
    made = plan_of(*blocks, other)
    lines = [
        "graph 8c1f: 8.00 -> 2.00 MiB held (0.250, budget 3.00), peak 9.00 -> 4.00, 4 ms, "
        "error 0.020, gap 0.010",
        "module        producer            for     choice        count    MiB  held     ms  error",
        "blocks.*.fc1  aten.addmm.default  linear  keep              3  12.00  3.00  3.000  0.017",
        "blocks.*.fc1  aten.addmm.default          codes:bits=4      1   4.00  1.00  1.000  0.010",
    ]
    assert str(made).splitlines() == lines
    second = replace(made.graphs[0], key="77", entries=(), budget=None, dense=0, held=0)
    assert str(Plan((*made.graphs, second))).splitlines() == [
        *lines,
        "",
        "graph 77: 0.00 -> 0.00 MiB held (-), peak 9.00 -> 4.00, 0 ms, error 0.000, gap 0.010",
        "module  producer  for  choice  count  MiB  held  ms  error",
        "",
        "2 graphs: 8.00 -> 2.00 MiB held (0.250), 4 ms",
    ]
    assert str(Plan()) == "no graphs"


@given(PLANS, PLANS)
def test_a_terminal_is_shown_no_control_characters(one: Plan, other: Plan) -> None:
    shown = f"{one}\n{one.text()}\n{one.compare(other)}"
    assert all(line.isprintable() for line in shown.split("\n"))


def test_plans_are_compared_tensor_by_tensor() -> None:
    before = plan_of(entry("addmm"), entry("gelu", module="act"), entry("old"))
    after = plan_of(entry("addmm"), entry("gelu", "codes:bits=4", module="act", held=MIB // 2))
    after = Plan((replace(after.graphs[0], held=MIB), *plan_of(key="77").graphs))
    assert before.compare(after).splitlines() == [
        "graph 8c1f: 2.00 -> 1.00 MiB held, peak 4.00 -> 4.00, 3 -> 2 ms, error 0.017 -> 0.014",
        "tensor  module   choice                MiB held",
        "gelu    act      keep -> codes:bits=4  1.00 -> 0.50",
        "old     (model)  keep -> none          1.00 -> none",
        "graph 77: in the second plan alone (2.00 MiB held)",
        "all: 2.00 -> 3.00 MiB held, 3 -> 2 ms, choices of 2 tensors changed",
    ]
    assert after.compare(before).splitlines()[-2:] == [
        "graph 77: in the first plan alone (2.00 MiB held)",
        "all: 3.00 -> 2.00 MiB held, 2 -> 3 ms, choices of 2 tensors changed",
    ]
    assert before.compare(before).splitlines()[1] == "no changes"


@pytest.mark.parametrize("module", [cells, plan, reading])
def test_the_examples_run(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
