"""The Pareto picture as a small SVG for a README or a page of docs.

python -m actprune.report.picture results.json picture.svg
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2

from actprune import results
from actprune.report.summary import Row, rows
from actprune.training.checkpoint import write_whole

WIDTH, HEIGHT = 860, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 290, 30, 60

_TEMPLATE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ w }} {{ h }}" font-family="system-ui, sans-serif" font-size="13">
<rect width="{{ w }}" height="{{ h }}" fill="#ffffff"/>
{% for t in y_ticks %}<line x1="{{ left }}" x2="{{ w - right }}" y1="{{ t.at }}" y2="{{ t.at }}" stroke="#e4e9ee"/>
<text x="{{ left - 10 }}" y="{{ t.at + 4 }}" text-anchor="end" fill="#5b6b7b">{{ t.label }}</text>
{% endfor %}{% for t in x_ticks %}<text x="{{ t.at }}" y="{{ h - 36 }}" text-anchor="middle" fill="#5b6b7b">{{ t.label }}</text>
{% endfor %}<text x="{{ (left + w - right) / 2 }}" y="{{ h - 12 }}" text-anchor="middle" fill="#1c2733">saved for the backward pass, MiB</text>
<text transform="translate(18 {{ (30 + h - 60) / 2 }}) rotate(-90)" text-anchor="middle" fill="#1c2733">accuracy, %</text>
{% for p in points %}<line x1="{{ p.x }}" x2="{{ p.x }}" y1="{{ p.high }}" y2="{{ p.low }}" stroke="{{ p.colour }}" stroke-width="2"/>
<circle cx="{{ p.x }}" cy="{{ p.y }}" r="7" fill="{{ p.colour }}"/>
<circle cx="{{ w - right + 24 }}" cy="{{ 46 + 48 * loop.index0 }}" r="6" fill="{{ p.colour }}"/>
<text x="{{ w - right + 38 }}" y="{{ 50 + 48 * loop.index0 }}" fill="#1c2733">{{ p.name }}</text>
<text x="{{ w - right + 38 }}" y="{{ 67 + 48 * loop.index0 }}" fill="#5b6b7b" font-size="12">{{ p.note }}</text>
{% endfor %}</svg>
"""
_COLOURS = ["#5b6b7b", "#d1495b", "#edae49", "#2e86ab", "#00798c", "#6a4c93", "#7cb518", "#b56576"]


def draw(table: Sequence[Row]) -> str:
    """Accuracy against saved bytes, a labelled point a format; bars are the spread over seeds."""
    shown = [r for r in table if r.saved_mib is not None and r.accuracy is not None]
    xs = [row.saved_mib or 0 for row in shown]
    ends = [(row.accuracy or 0) + sign * (row.spread or 0) for row in shown for sign in (-1, 1)]
    x_low, x_high = _padded(min(xs), max(xs))
    y_low, y_high = _padded(min(ends), max(ends))

    def x(value: float) -> float:
        return round(LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(
            HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1
        )

    points = []
    for index, row in enumerate(shown):
        accuracy, spread = row.accuracy or 0, row.spread or 0
        points.append(
            {
                "x": x(row.saved_mib or 0),
                "y": y(accuracy),
                "high": y(accuracy + spread),
                "low": y(accuracy - spread),
                "colour": _COLOURS[index % len(_COLOURS)],
                "name": row.spec.replace(",sparsity=", " ").replace(":sparsity=", " "),
                "note": f"{accuracy:.1f} %, {row.step_ratio or 0:.2f} of dense's step time",
            }
        )
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_TEMPLATE).render(
        w=WIDTH,
        h=HEIGHT,
        left=LEFT,
        right=RIGHT,
        points=points,
        x_ticks=[{"at": x(v), "label": f"{v:.0f}"} for v in _ticks(x_low, x_high)],
        y_ticks=[{"at": y(v), "label": f"{v:.1f}"} for v in _ticks(y_low, y_high)],
    )


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = (high - low) * 0.1 or 1.0
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    return [low + (high - low) * part / 5 for part in range(1, 5)]


if __name__ == "__main__":
    made = results.read(Path(sys.argv[1]))
    write_whole(Path(sys.argv[2]), draw(rows(made)).encode())
