"""index.html: one file that opens without a network."""

from importlib import resources
from pathlib import Path

import jinja2
import plotly.graph_objects as go
import plotly.io
import plotly.offline
from markupsafe import Markup

from actprune.report import figures
from actprune.report.summary import OPS, headline, rows
from actprune.report.table import text
from actprune.results import Results
from actprune.training.checkpoint import write_whole


def write_page(results: Results, path: Path) -> None:
    """Write the page of `results` to `path`, whole or not at all."""
    write_whole(path, render(results).encode())


def render(results: Results) -> str:
    """The page as HTML, with plotly's script inside."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["figure"] = text
    source = resources.files("actprune.report").joinpath("template.html.j2").read_text("utf-8")
    table = rows(results)
    trained = bool(results.training)
    return environment.from_string(source).render(
        results=results,
        table=table,
        ops=OPS,
        headline=headline(table),
        pareto=_embed(figures.pareto(table), "pareto") if trained else None,
        speed=_embed(figures.speed(table), "speed") if trained else None,
        epochs=_embed(figures.epochs(results), "epochs") if trained else None,
        heat_maps=[
            (layer, _embed(figure, f"heat-{index}"))
            for index, (layer, figure) in enumerate(figures.heat_maps(results))
        ],
        # A script of the page's own, not text of a user's: the one thing that is not escaped.
        plotly=Markup(plotly.offline.get_plotlyjs()),
    )


def _embed(figure: go.Figure, name: str) -> Markup:
    # plotly writes JSON into a script element and escapes `<`, `>` and `&` in it
    html = plotly.io.to_html(
        figure,
        include_plotlyjs=False,
        full_html=False,
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
    return Markup(html)
