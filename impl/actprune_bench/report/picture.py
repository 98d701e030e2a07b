"""The Pareto picture as a small SVG for a README or a page of docs.

python -m actprune_bench.report.picture results.json picture.svg
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from actprune_bench.report.marks import SIDES, beside, colour, label, place, ticks
from actprune_bench.report.summary import Row, rows
from actprune_common import results
from actprune_common.errors import InputError
from actprune_common.files import write_whole

WIDTH, LEAST_HEIGHT, LINE = 980, 420, 48
LEFT, RIGHT, TOP, BOTTOM = 70, 410, 30, 60

_TEMPLATE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ w }} {{ h }}" font-family="system-ui, sans-serif" font-size="13">
<rect width="{{ w }}" height="{{ h }}" rx="8" fill="#ffffff"/>
{% for t in y_ticks %}<line x1="{{ left }}" x2="{{ w - right }}" y1="{{ t.at }}" y2="{{ t.at }}" stroke="#e4e9ee"/>
<text x="{{ left - 10 }}" y="{{ t.at + 4 }}" text-anchor="end" fill="#5b6b7b">{{ t.label }}</text>
{% endfor %}{% for t in x_ticks %}<line x1="{{ t.at }}" x2="{{ t.at }}" y1="{{ top }}" y2="{{ h - bottom }}" stroke="#e4e9ee"/>
<text x="{{ t.at }}" y="{{ h - 36 }}" text-anchor="middle" fill="#5b6b7b">{{ t.label }}</text>
{% endfor %}<text x="{{ (left + w - right) / 2 }}" y="{{ h - 12 }}" text-anchor="middle" fill="#1c2733">saved for the backward pass, MiB</text>
<text transform="translate(18 {{ (top + h - bottom) / 2 }}) rotate(-90)" text-anchor="middle" fill="#1c2733">accuracy, %</text>
{% for p in points %}<line x1="{{ p.x }}" x2="{{ p.x }}" y1="{{ p.high }}" y2="{{ p.low }}" stroke="{{ p.colour }}" stroke-width="2"/>
<circle cx="{{ p.x }}" cy="{{ p.y }}" r="7" fill="{{ p.colour }}"/>
<text x="{{ p.name_x }}" y="{{ p.name_y }}" text-anchor="{{ p.anchor }}" fill="{{ p.colour }}" font-size="12.5">{{ p.name }}</text>
<circle cx="{{ w - right + 24 }}" cy="{{ 46 + 48 * loop.index0 }}" r="6" fill="{{ p.colour }}"/>
<text x="{{ w - right + 38 }}" y="{{ 50 + 48 * loop.index0 }}" fill="#1c2733">{{ p.key }}</text>
<text x="{{ w - right + 38 }}" y="{{ 67 + 48 * loop.index0 }}" fill="#5b6b7b" font-size="12">{{ p.note }}</text>
{% endfor %}</svg>
"""


def draw(table: Sequence[Row]) -> str:
    """Accuracy against saved bytes, a labelled point a format; bars are the spread over seeds.

    Raises InputError where nothing was trained.
    """
    shown = [r for r in table if r.saved_mib is not None and r.accuracy is not None]
    if not shown:
        raise InputError("results: expected training runs to draw, got none")
    height = max(LEAST_HEIGHT, LINE * len(shown) + TOP)  # the key has a line for each
    xs = [row.saved_mib or 0 for row in shown]
    ends = [(row.accuracy or 0) + sign * (row.spread or 0) for row in shown for sign in (-1, 1)]
    x_low, x_high = _padded(min(xs), max(xs))
    y_low, y_high = _padded(min(ends), max(ends))

    def x(value: float) -> float:
        return round(LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(
            height - BOTTOM - (value - y_low) / (y_high - y_low) * (height - TOP - BOTTOM), 1
        )

    names = beside([row.spec for row in shown])
    points: list[dict[str, Any]] = []
    for index, (row, name) in enumerate(zip(shown, names, strict=True)):
        accuracy, spread = row.accuracy or 0, row.spread or 0
        points.append(
            {
                "x": x(row.saved_mib or 0),
                "y": y(accuracy),
                "high": y(accuracy + spread),
                "low": y(accuracy - spread),
                "colour": colour(index),
                "name": name,
                "key": f"{name}  {label(row.spec)}" if name.isdecimal() else name,
                "note": _note(row),
            }
        )
    inside = (LEFT, TOP, WIDTH - RIGHT + 10, height - BOTTOM)
    at = [(point["x"], point["y"]) for point in points]
    sides = place(at, names, inside)
    for point, side in zip(points, sides, strict=True):
        dx, dy = SIDES[side]
        point["name_x"], point["name_y"] = point["x"] + 12 * dx, point["y"] + 4 + 18 * dy
        point["anchor"] = {1: "start", 0: "middle", -1: "end"}[dx]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_TEMPLATE).render(
        w=WIDTH,
        h=height,
        left=LEFT,
        top=TOP,
        bottom=BOTTOM,
        right=RIGHT,
        points=points,
        x_ticks=[{"at": x(v), "label": f"{v:g}"} for v in ticks(x_low, x_high)],
        y_ticks=[{"at": y(v), "label": f"{v:g}"} for v in ticks(y_low, y_high)],
    )


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = (high - low) * 0.1 or 1.0
    return low - margin, high + margin


def _note(row: Row) -> str:
    spread = "" if row.spread is None else f" ±{row.spread:.1f}"
    return f"{row.accuracy:.1f}{spread} %, {row.step_ratio:.2f} of dense's step time"


def main(arguments: Sequence[str]) -> int:
    """The picture of a results.json into an SVG; returns the exit code."""
    try:
        if len(arguments) != 2:
            raise InputError("expected two arguments, RESULTS.json and PICTURE.svg")
        made = results.read(Path(arguments[0]))
        write_whole(Path(arguments[1]), draw(rows(made)).encode())
    except InputError as problem:
        sys.stderr.write(f"actprune: error: {problem}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
