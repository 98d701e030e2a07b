"""The table, the page and the picture: what they say, and that nothing in them is unescaped."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rich.console import Console

from actprune_bench.records.environment import environment
from actprune_bench.report.figures import heat_maps, speed
from actprune_bench.report.layers import layer_table
from actprune_bench.report.marks import ABOVE, LEFT, RIGHT, label, place, ticks
from actprune_bench.report.page import render, write_page
from actprune_bench.report.picture import draw
from actprune_bench.report.picture import main as picture_main
from actprune_bench.report.summary import failures, headline, kernel_table, rows
from actprune_bench.report.table import print_table
from actprune_common import results
from tests.samples import LAYERS, SPECS, kernel, layer, make, sample, training


def printed(made: results.Results, width: int) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    print_table(made, console)
    text = console.export_text()
    console.file.close()
    return text


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_fits_and_has_every_format(width: int) -> None:
    text = printed(sample(), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    assert "79.5 ±0.7" in text.replace("80.5", "79.5")
    for spec in SPECS:
        assert spec.split(":")[0] in text


def test_a_plan_is_shown_whole() -> None:
    spec = "lean+blocks.[01].*=>csr:sparsity=0.5;*=>dense"
    made = make(environment("x"), [], [training("dense"), training(spec)])
    assert "lean+blocks.[01].*=>csr:sparsity=0.5; *=>dense" in printed(made, 180)
    shown = "lean+blocks.[01].*=&gt;<wbr>csr:<wbr>sparsity=0.5;<wbr>*=&gt;<wbr>dense"
    assert shown in render(made)


def test_a_failed_check_shows_no_time() -> None:
    failed = kernel(
        "csr:sparsity=0.9",
        samples_ms=[],
        median_ms=None,
        ratio_to_dense=None,
        ok=False,
        error="grad_weight: relative error 0.5 is over the tolerance",
    )
    made = make(environment("x"), [kernel("dense"), failed], [])
    text = printed(made, 140)
    assert "csr:sparsity=0.9 at fc1: no times, grad_weight: relative error 0.5 is over" in text
    assert re.search(r"csr:sparsity=0\.9 .*—", text)
    assert "relative error 0.5 is over the tolerance" in render(made)


def test_rows_average_over_seeds_and_take_the_median_over_layers() -> None:
    kernels = [
        kernel("dense", layer=layer, ratio_to_dense=ratio)
        for layer, ratio in (("a", 0.2), ("b", 0.9), ("c", 0.4))
    ]
    runs = [training("dense", seed, accuracy=accuracy) for seed, accuracy in ((0, 70.0), (1, 80.0))]
    (row,) = rows(make(environment("x"), kernels, runs))
    assert row.kernels["linear"] == 0.4
    assert row.accuracy == 75
    assert row.spread == pytest.approx(7.0711, abs=1e-4)
    assert row.seeds == 2


def test_the_headline_is_computed() -> None:
    text = headline(rows(sample()))
    assert "csr:sparsity=0.9 is the most accurate: 79.5 % against 80.5 % dense" in text
    assert "keeping 89% of the bytes" in text
    assert "The fastest is bsr:block=1x32,sparsity=0.9, at 0.85" in text
    assert headline([]) == "Kernels only: no training run was compared."


def test_the_page_loads_nothing() -> None:
    html = render(sample())
    own = html.replace(re.search(r"<script>.*?</script>", html, re.DOTALL)[0], "")  # type: ignore[index]
    assert len(html) - len(own) > 1_000_000  # plotly is inside
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?(?:https?:)?//", html)
    assert "@import" not in own
    assert own.count('class="plot"') == 4
    for made in sample().training:
        assert made.command.replace("'", "&#39;") in own


def test_text_of_a_user_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    made = make(
        environment(evil),
        [kernel("dense"), kernel("csr:sparsity=0.9", error=evil, layer=evil)],
        [training("dense", command=evil, data=evil), training(evil)],
    )
    html = render(made)
    assert evil not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert evil not in draw(rows(made))


def test_kernels_alone_make_a_page() -> None:
    made = make(environment("x"), [kernel("dense")], [])
    html = render(made)
    assert "Kernels only: no training run was compared." in html
    assert "No training was measured in this run" in html
    assert 'id="pareto"' not in html


def test_heat_maps_hold_plain_block_sparse_records_only() -> None:
    ((layer, figure),) = heat_maps(sample())
    assert layer == "fc1: X 6272x384, dY 6272x1536"
    (heat,) = figure.data
    assert list(heat.y) == ["1x32", "1x64", "32x32", "64x64"]
    assert list(heat.x) == ["50 %", "90 %"]


@pytest.mark.parametrize("sparsity", ["0.9.9", "-", "most", "0.9e", ""])
def test_a_page_takes_specs_that_this_version_cannot_read(sparsity: str) -> None:
    odd = kernel(f"bsr:block=1x32,sparsity={sparsity}", op="grad_weight")
    made = make(environment("x"), [kernel("dense", op="grad_weight"), odd], [])
    assert heat_maps(made) == []
    assert f"sparsity={sparsity}" in render(made)


def test_the_gradients_of_each_layer_stand_beside_the_accuracy() -> None:
    table = layer_table(sample())
    assert all(list(line.cells) == LAYERS for line in table)
    assert [(line.spec, line.accuracy) for line in table] == [
        (SPECS[1], 79.5),
        (SPECS[2], 78.5),
        (SPECS[3], 77.5),
    ]
    cell = table[0].cells[LAYERS[0]]
    assert cell is not None
    assert cell.biased
    assert cell.error == cell.tint == pytest.approx(0.1)
    assert cell.words == (
        "cosine 0.995, norm 0.95 of dense's, relative error 0.100, "
        "bias 0.100 over 8 draws, of which noise would leave 0.035"
    )
    shown = re.search(r'<table id="layers">.*?</table>', render(sample()), re.DOTALL)
    assert shown is not None
    assert shown[0].count('style="background: rgba(224, 108, 40, 0.10)">0.10 <b>b</b></td>') == 3
    assert "<th>blocks.0.<wbr>mlp.<wbr>fc1</th>" in shown[0]


def test_fair_gradients_are_not_called_biased_and_missing_figures_are_gaps() -> None:
    fair = layer("a", 0.8, bias=0.8 / 8**0.5)
    runs = [training("csr", layers=[fair]), training("coo", layers=[layer("b", float("nan"))])]
    made = make(environment("x"), [], [training("dense"), *runs])
    (first, gap), (other_gap, lost) = (line.cells.values() for line in layer_table(made))
    assert (gap, other_gap) == (None, None)
    assert first is not None
    assert (first.error, first.biased) == (0.8, False)
    assert lost is not None
    assert (lost.error, lost.words, lost.tint) == (None, "not finite", 0)
    assert ">—</td>" in render(made)
    dense = make(environment("x"), [], [training("dense")])
    assert layer_table(dense) == []
    assert '<table id="layers">' not in render(dense)


@pytest.mark.parametrize("alone", [True, False])
def test_the_picture_is_an_svg_with_every_format(alone: bool) -> None:
    tree = ET.fromstring(draw(rows(sample()), alone=alone))
    marks = tree.findall(".//{http://www.w3.org/2000/svg}path")
    assert len(marks) == (2 if alone else 1) * len(SPECS)  # the key has one too
    for mark in marks:
        x, y = re.findall(r"[\d.]+", mark.get("transform", ""))
        assert 0 < float(x) < (860 if alone else 980)
        assert 0 < float(y) < 420
    titles = [title.text for title in tree.findall(".//{http://www.w3.org/2000/svg}title")]
    assert [title and title.partition(": ")[0] for title in titles[:1]] == SPECS[:1]
    assert len(titles) == len(SPECS)
    assert titles[0] == "dense: 80.50 % at 128.7 MiB"


@pytest.mark.parametrize("count", [8, 9])
def test_many_formats_are_numbered_and_no_two_look_the_same(count: int) -> None:
    specs = ["dense", *(f"csr:sparsity=0.{digit}" for digit in range(1, count))]
    runs = [training(spec, 0) | {"spec": spec} for spec in specs]
    made = make(environment("actprune compare"), [], runs)
    beside = [re.findall(r'font-size="12.5">(.*?)<', draw(rows(made)))]
    bare = draw(rows(made), alone=False)
    beside.append(re.findall(r'font-size="12.5">(.*?)<', bare))
    names = [label(spec) for spec in specs] if count == 8 else [str(i + 1) for i in range(count)]
    assert beside == [names, names]
    assert len(set(re.findall(r'<path d="(.*?)".* fill="(.*?)"', bare))) == count
    assert (
        len({(trace.marker.color, trace.marker.symbol) for trace in speed(rows(made)).data})
        == count
    )
    page = render(made)
    assert (f"</span> 2 {specs[1]}<" in page) == (count == 9)
    assert "one seed, so how far accuracies are apart by chance is not known" in page
    assert "one seed, so" not in render(sample())


def test_the_picture_needs_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, picture = tmp_path / "r.json", tmp_path / "p.svg"
    results.write(file, make(environment("x"), [kernel("dense")], []))
    assert picture_main([str(file), str(picture)]) == 2
    said = "actprune: error: results: expected training runs to draw, got none\n"
    assert capsys.readouterr().err == said
    assert not picture.exists()
    results.write(file, sample())
    assert picture_main([str(file), str(picture)]) == 0
    assert picture.read_text().startswith("<svg")


def test_short_names_and_round_ticks() -> None:
    assert label("bsr:block=1x32,sparsity=0.9,select=priority") == "bsr 1x32 90 % priority"
    assert label("dense") == "dense"
    assert label("compile(0.1)+bf16+dense") == "compile(0.1)+bf16+dense"
    assert label("compile(64MiB)+*.mlp@*=>dense;@*=>codes:bits=8").endswith("+@* codes 8 but 1")
    assert label("new:sparsity=most,<b>") == "new most <b>"
    assert label("lean+*.attn=>csr:sparsity=0.5") == "lean+*.attn csr 50 %"
    assert label("lean+*.attn=>csr:sparsity=0.5;*=>dense") == "lean+dense but 1"
    assert label("head=>csr:sparsity=0.5") == "head csr 50 %"
    assert ticks(75.2, 84.9) == [76, 78, 80, 82, 84]
    assert ticks(0.11, 0.31) == pytest.approx([0.15, 0.2, 0.25, 0.3])


def test_names_keep_off_each_other_and_inside() -> None:
    points = [(100.0, 50.0), (170.0, 50.0), (390.0, 80.0)]
    sides = place(points, ["a name of some length"] * 3, (0, 0, 400, 100))
    assert sides == [ABOVE, RIGHT, LEFT]


def test_kernels_of_one_failed_layer_have_no_summary() -> None:
    failed: dict[str, object] = {
        "samples_ms": [],
        "median_ms": None,
        "ratio_to_dense": None,
        "ok": False,
    }
    kernels = [kernel("dense"), kernel("dense", layer="fc2"), kernel("coo", layer="fc2")]
    kernels += [kernel("coo") | failed]
    made = make(environment("x"), kernels, [])
    assert [row.kernels["linear"] for row in rows(made)] == [1, None]
    assert failures(made) == ["coo at fc1: no times, its check failed"]
    lines = kernel_table(made)
    assert [ratios["fc1"][2] for ratios in lines.values()] == [1, None]
    assert lines["coo"]["fc2"][2] == pytest.approx(10 / 11)


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    write_page(sample(), tmp_path / "index.html")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
