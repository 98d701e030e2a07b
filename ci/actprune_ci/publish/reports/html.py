"""The report as one page that opens without a network."""

from collections.abc import Sequence
from importlib import resources

import jinja2

from actprune_ci.judge.report import GOOD, Report
from actprune_ci.publish.reports import formatting

WIDTH, HEIGHT = 240, 36


def render(report: Report) -> str:
    """The page; every text of the input is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(formatting=formatting, points=points, width=WIDTH, height=HEIGHT)
    source = resources.files("actprune_ci.publish.reports").joinpath("page.html.j2")
    page = environment.from_string(source.read_text("utf-8"))
    return page.render(report=report, good=report.code == GOOD) + "\n"


def points(values: Sequence[float]) -> str:
    """The values as the points of an SVG polyline, 2 pixels from each edge."""
    low, high = min(values), max(values)
    scale = (HEIGHT - 4) / (high - low) if high > low else 0
    step = (WIDTH - 4) / max(len(values) - 1, 1)
    places = ((2 + i * step, HEIGHT - 2 - (v - low) * scale) for i, v in enumerate(values))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
