"""The report as one page that opens without a network."""

from collections.abc import Sequence

import jinja2
from markupsafe import Markup

from actprune_ci.judge.report import GOOD, Report
from actprune_ci.publish.reports import formatting
from actprune_common.printable import visible

WIDTH, HEIGHT = 240, 36


def render(report: Report) -> str:
    """The page."""
    environment = templates("actprune_ci.publish.reports", ".")
    environment.globals.update(formatting=formatting, points=points, width=WIDTH, height=HEIGHT)
    page = environment.get_template("page.html.j2")
    return page.render(report=report, good=report.code == GOOD) + "\n"


def templates(package: str, folder: str) -> jinja2.Environment:
    """The templates in a folder of a package; every text of the input is visible and escaped."""

    def shown(value: object) -> object:
        return value if isinstance(value, Markup) else visible(value)

    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, folder),
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def points(values: Sequence[float]) -> str:
    """The values as the points of an SVG polyline, 2 pixels from each edge."""
    low, high = min(values), max(values)
    scale = (HEIGHT - 4) / (high - low) if high > low else 0
    step = (WIDTH - 4) / max(len(values) - 1, 1)
    places = ((2 + i * step, HEIGHT - 2 - (v - low) * scale) for i, v in enumerate(values))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
