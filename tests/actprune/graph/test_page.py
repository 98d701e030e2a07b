"""A plan's page: it stands alone, shows names as text, and draws both curves to one scale."""

import doctest
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actprune.graph import chart, page
from actprune.graph.chart import ticks
from actprune.graph.plan import Entry, GraphPlan, Plan
from actprune.graph.reading import parse_plan
from tests.actprune_bench.report.test_page_in_browser import FLAGS

MIB = 2**20
SVG = {"": "http://www.w3.org/2000/svg"}
UNSEEN = "\x1b\u202e\ud800"
RUN = "document.documentElement.setAttribute('data-ran', 1)"
TAGS = f'<img src=https://e.example/ onerror="{RUN}"><script>{RUN}</script>'
HOSTILE = f"a'\"&</code></svg>{TAGS}{UNSEEN}"
ENTRY = Entry("addmm", "fc1", "aten.addmm.default", ("linear",), 4 * MIB, "keep", MIB, 1e-3, 1e-4)
GRAPH = GraphPlan(
    *("8c1f", (ENTRY,), 3 * MIB, 8 * MIB, 2 * MIB, 9 * MIB, 4 * MIB, 0.01),
    timeline=tuple(MIB * each for each in (1, 2, 2, 4, 3, 2, 1, 0)),
    dense_timeline=tuple(MIB * each for each in (4, 8, 9, 0)),
    forward=4,
    dense_forward=2,
)
TIMELINES = st.lists(st.integers(0, 2**45), max_size=20).flatmap(
    lambda line: st.tuples(st.just(tuple(line)), st.integers(0, len(line)))
)


def svg_of(graph: GraphPlan) -> ElementTree.Element:
    found = re.search(r"<svg.*?</svg>", page.page(Plan((graph,))), re.DOTALL)
    assert found is not None
    return ElementTree.fromstring(found[0])


def line_of(svg: ElementTree.Element, name: str) -> list[tuple[float, float]]:
    """Corners of a curve."""
    path = svg.find(f"path[@class='line {name}']", SVG)
    assert path is not None
    move, *steps = re.findall(r"[MHV][^MHV]+", path.get("d", ""))
    x, y = map(float, move[1:].split())
    corners = [(x, y)]
    for step in steps:
        x, y = (float(step[1:]), y) if step[0] == "H" else (x, float(step[1:]))
        corners.append((x, y))
    return corners


def test_both_passes_align_and_both_curves_have_one_scale() -> None:
    svg = svg_of(GRAPH)
    between = svg.find("path[@class='between']", SVG)
    assert between is not None
    middle = float(re.findall(r"M(\S+)", between.get("d", ""))[0])
    dense, planned = line_of(svg, "dense"), line_of(svg, "planned")
    assert dense[0][0] == planned[0][0] < middle < dense[-1][0] == planned[-1][0]
    assert middle in {x for x, _ in dense} & {x for x, _ in planned}
    levels = {
        float(each.text or ""): float(each.get("y", ""))
        for each in svg.findall("text[@class='soft']", SVG)
        if each.text and each.text.isdigit()
    }
    assert list(levels) == [0, 2, 4, 6, 8, 10]
    bottom, top = levels[0], levels[10]
    for name, curve, values in (
        ("dense", dense, (4, 8, 9, 0)),
        ("planned", planned, (1, 2, 4, 3, 2, 1, 0)),
    ):
        area = svg.find(f"path[@class='area {name}']", SVG)
        assert area is not None
        assert area.get("d", "").endswith(f"H{curve[-1][0]}V{bottom:g}Z")
        heights = list(dict.fromkeys(y for _, y in curve))
        expected = dict.fromkeys(round(bottom - v * (bottom - top) / 10, 1) for v in values)
        assert heights == list(expected)
    told = [text.text for text in svg.findall("text", SVG)]
    assert told[-4:] == ["forward pass", "backward pass", "9.00 MiB", "4.00 MiB"]
    marks = [float(mark.get("cy", "")) for mark in svg.findall("circle", SVG)]
    assert marks == [min(y for _, y in dense), min(y for _, y in planned)]


def test_peaks_that_lie_together_have_their_texts_apart() -> None:
    same = replace(GRAPH, dense_timeline=GRAPH.timeline, dense_forward=GRAPH.forward)
    high, low = svg_of(same).findall("text", SVG)[-2:]
    assert high.get("x") == low.get("x")
    assert float(low.get("y", "")) - float(high.get("y", "")) > 20


@given(TIMELINES, TIMELINES)
def test_any_timeline_is_drawn_within_the_picture(
    planned: tuple[tuple[int, ...], int], dense: tuple[tuple[int, ...], int]
) -> None:
    lines = {"timeline": planned[0], "dense_timeline": dense[0]}
    graph = replace(GRAPH, **lines, forward=planned[1], dense_forward=dense[1])  # type: ignore[arg-type]
    if not planned[0] and not dense[0]:
        assert chart.chart(graph) == ""
        return
    svg = svg_of(graph)
    _, _, width, height = map(float, svg.get("viewBox", "").split())
    for name, (points, _) in (("planned", planned), ("dense", dense)):
        if points:
            corners = line_of(svg, name)
            assert all(0 <= x <= width and 0 <= y <= height for x, y in corners)
            assert all(x <= later for (x, _), (later, _) in pairwise(corners))
        else:
            assert svg.find(f"path[@class='line {name}']", SVG) is None


@given(st.just(0.0) | st.floats(1 / MIB, 1e12))  # one byte is the least that is something
def test_ticks_are_round_few_and_reach_the_top(top: float) -> None:
    found = ticks(top)
    assert found[0] == 0
    assert found[-1] >= top * (1 - 1e-12)
    assert 2 <= len(found) <= 7
    assert f"{found[1]:.0e}"[0] in "125"
    assert found == sorted(set(found))


def test_a_plan_without_timelines_has_its_table_and_says_so() -> None:
    made = page.page(parse_plan(Plan((GRAPH,)).text()))
    assert "<svg" not in made
    assert "the plan has no timelines" in made
    assert "<code>addmm</code>" in made
    assert "<p>No graphs.</p>" in page.page(Plan())


def test_each_tensor_is_below_its_module_with_its_figures() -> None:
    coded = replace(ENTRY, name="gelu_1", choice="codes:bits=4", held=MIB // 2)
    outer = replace(ENTRY, name="x", module="", choice="-", held=0, kinds=())
    made = page.page(Plan((replace(GRAPH, entries=(ENTRY, outer, coded)),)))
    text = re.sub(r"<wbr>", "", made[made.index("By module") :])
    rows = [
        [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", row)]
        for row in re.findall(r"<tr.*?</tr>", text)
    ][1:]
    figures = ["", "1.000", "0.010"]
    assert rows == [
        ["fc1"],
        ["addmm", "aten.addmm.default", "linear", "keep", "4.00", "1.00", *figures],
        ["gelu_1", "aten.addmm.default", "linear", "codes:bits=4", "4.00", "0.50", *figures],
        ["the model itself"],
        ["x", "aten.addmm.default", "", "not needed", "4.00", "0.00", *figures],
    ]
    assert '<span style="width:100.0%"><i class="store" style="width:12.5%"></i></span>' in text
    assert re.search(r"<tfoot>.*all.*>3<.*>12\.00<.*>1\.50<.*>3\.000<.*>0\.017<", made)


def test_choices_are_listed_from_the_most_bytes() -> None:
    sizes = {"keep": 1, "offload": 5, "codes:bits=4": 3}
    entries = [replace(ENTRY, choice=choice, nbytes=each * MIB) for choice, each in sizes.items()]
    made = page.page(Plan((replace(GRAPH, entries=tuple(entries)),)))
    found = re.findall(r'class="choice \w+">(.*?)<', made[: made.index("By module")])
    assert found == ["offload", "codes:bits=4", "keep"]


def test_several_graphs_are_listed_with_a_link_to_each() -> None:
    made = page.page(Plan((GRAPH, replace(GRAPH, key="77"))))
    assert re.findall(r'href="#([^"]*)"', made) == re.findall(r'<h2 id="([^"]*)"', made)
    assert '>4.00 MiB</b></dd><dd class="soft">0.250 of dense<' in made


def hostile() -> Plan:
    entry = replace(ENTRY, **dict.fromkeys(("name", "module", "producer", "choice"), HOSTILE))  # type: ignore[arg-type]
    return Plan((replace(GRAPH, key=HOSTILE, entries=(replace(entry, kinds=(HOSTILE,)),)), GRAPH))


class Parts(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs


def test_the_page_stands_alone_and_names_are_text(tmp_path: Path) -> None:
    path = tmp_path / "new" / "plan.html"
    page.write_page(hostile(), path)
    made = path.read_text("utf-8")
    assert not set(UNSEEN) & set(made)
    assert f'<meta http-equiv="Content-Security-Policy" content="{page.POLICY}">' in made
    assert "script-src" not in page.POLICY
    assert page.POLICY.startswith("default-src 'none'; ")
    assert not re.search(r"url\(|@import", made[: made.index("</style>")])
    parts = Parts()
    parts.feed(made)
    assert {"style", "svg", "table", "code"} <= parts.tags
    assert not {"script", "img", "iframe", "object", "form"} & parts.tags
    assert not {name for name, _ in parts.attributes if name == "src" or name.startswith("on")}
    links = {value for name, value in parts.attributes if name == "href"}
    assert links == {"data:,", "#graph-1", "#graph-2"}
    elsewhere = {value for _, value in parts.attributes if re.search("//", value or "")}
    assert elsewhere == set(SVG.values())
    for svg in re.findall(r"<svg.*?</svg>", made, re.DOTALL):
        ElementTree.fromstring(svg)


@pytest.mark.browser
def test_a_browser_draws_the_page_and_runs_nothing(tmp_path: Path, chromium: str) -> None:
    path = tmp_path / "plan.html"
    page.write_page(hostile(), path)
    words = [chromium, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [*words, path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert not re.search(r"<html[^>]* data-ran", done.stdout)
    assert "<img" not in done.stdout
    assert done.stdout.count('class="line planned"') == 2


@pytest.mark.parametrize("module", [chart, page])
def test_the_examples_run(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
