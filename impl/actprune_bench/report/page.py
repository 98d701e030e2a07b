"""index.html: one file that opens without a network."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
import plotly.offline
from markupsafe import Markup, escape

from actprune_bench.report import figures
from actprune_bench.report.layers import layer_table
from actprune_bench.report.marks import MOST_NAMES, SYMBOLS, colour, label, symbol
from actprune_bench.report.picture import draw
from actprune_bench.report.summary import failures, headline, kernel_table, rows
from actprune_bench.report.table import text
from actprune_common.files import write_whole
from actprune_common.results import OPS, Results


def write_page(results: Results, path: Path) -> None:
    """Write the page of `results` to `path`, whole or not at all."""
    write_whole(path, render(results))


def render(results: Results) -> str:
    """The page as HTML, with plotly's script inside."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(figure=text, breakable=_breakable, label=label)
    source = Path(__file__).with_name("template.html.j2").read_text("utf-8")
    table = rows(results)
    pictures = {}
    if results.training:
        pictures = {"speed": figures.speed(table), "epochs": figures.epochs(results)}
    heat_maps = figures.heat_maps(results)
    pictures |= {f"heat-{index}": figure for index, (_, figure) in enumerate(heat_maps)}
    return environment.from_string(source).render(
        results=results,
        table=table,
        ops=OPS,
        headline=headline(table),
        failures=failures(results),
        kernels=kernel_table(results),
        layers=layer_table(results),
        key=_key([row.spec for row in table]),
        heat_maps=[(f"heat-{index}", layer) for index, (layer, _) in enumerate(heat_maps)],
        # plotly's own JSON, which knows its types; the filter tojson escapes < > & '
        # Drawn with escaped texts, as a page is.
        pareto=Markup(draw(table, alone=False)) if results.training else "",
        pictures={name: json.loads(figure.to_json()) for name, figure in pictures.items()},
        # A script of plotly's, not text of a user's: the one thing that is not escaped.
        plotly=Markup(plotly.offline.get_plotlyjs()),
    )


def _key(specs: Sequence[str]) -> list[tuple[str, str, str]]:
    """Colour, sign and text of each format; numbered where the picture's points are."""
    numbered = len(specs) > MOST_NAMES
    texts = [f"{number} {spec}" if numbered else spec for number, spec in enumerate(specs, 1)]
    return [(colour(i), SYMBOLS[symbol(i)][0], text) for i, text in enumerate(texts)]


def _breakable(spec: str) -> Markup:
    """A spec or a layer's name that may go on in a new line after its parts."""
    parts = re.split(r"(?<=[:,;])|(?<==>)|(?<=\.)(?=[a-z])", spec)
    return Markup("<wbr>").join(escape(part) for part in parts)
