"""The Pareto picture as an SVG, in the page and alone for a README.

python -m actprune_bench.report.picture results.json picture.svg
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from actprune_bench.report.marks import SIDES, SYMBOLS, beside, colour, label, place, symbol, ticks
from actprune_bench.report.summary import rows
from actprune_common.errors import InputError
from actprune_common.files import write_whole
from actprune_common.results import read
from actprune_common.summary import Row

WIDTH, LEAST_HEIGHT, LINE = 980, 420, 48
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 30, 60
KEY = 390
"""Pixels for the key, which stands on the right of a picture that stands alone."""

_TEMPLATE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ w }} {{ h }}" font-family="system-ui, sans-serif" font-size="13">
{% if alone %}<rect width="{{ w }}" height="{{ h }}" rx="8" fill="#ffffff"/>
{% endif %}{% for t in y_ticks %}<line class="grid" x1="{{ left }}" x2="{{ right }}" y1="{{ t.at }}" y2="{{ t.at }}" stroke="#e4e9ee"/>
<text class="tick" x="{{ left - 10 }}" y="{{ t.at + 4 }}" text-anchor="end" fill="#5b6b7b">{{ t.label }}</text>
{% endfor %}{% for t in x_ticks %}<line class="grid" x1="{{ t.at }}" x2="{{ t.at }}" y1="{{ top }}" y2="{{ bottom }}" stroke="#e4e9ee"/>
<text class="tick" x="{{ t.at }}" y="{{ h - 36 }}" text-anchor="middle" fill="#5b6b7b">{{ t.label }}</text>
{% endfor %}<text class="ink" x="{{ (left + right) / 2 }}" y="{{ h - 12 }}" text-anchor="middle" fill="#1c2733">saved for the backward pass, MiB</text>
<text class="ink" transform="translate(18 {{ (top + bottom) / 2 }}) rotate(-90)" text-anchor="middle" fill="#1c2733">accuracy, %</text>
{% for p in points %}<g class="point"><title>{{ p.title }}</title>
<line x1="{{ p.x }}" x2="{{ p.x }}" y1="{{ p.high }}" y2="{{ p.low }}" stroke="{{ p.colour }}" stroke-width="2"/>
<path d="{{ p.mark }}" transform="translate({{ p.x }} {{ p.y }})" fill="{{ p.colour }}"/>
<text class="name" x="{{ p.name_x }}" y="{{ p.name_y }}" text-anchor="{{ p.anchor }}" fill="{{ p.colour }}" font-size="12.5">{{ p.name }}</text></g>
{% if alone %}<path d="{{ p.mark }}" transform="translate({{ right + 34 }} {{ 46 + 48 * loop.index0 }})" fill="{{ p.colour }}"/>
<text x="{{ right + 48 }}" y="{{ 50 + 48 * loop.index0 }}" fill="#1c2733">{{ p.key }}</text>
<text x="{{ right + 48 }}" y="{{ 67 + 48 * loop.index0 }}" fill="#5b6b7b" font-size="12">{{ p.note }}</text>
{% endif %}{% endfor %}</svg>
"""


def draw(table: Sequence[Row], *, alone: bool = True) -> str:
    """Accuracy against saved bytes, a labelled point a format; bars are the spread over seeds.

    alone: on white ground and with a key, for a README; else bare, for a page that has both.
    Raises InputError where nothing was trained.
    """
    shown = [(i, r, r.saved_mib, r.accuracy) for i, r in enumerate(table)]
    points = [_Point(i, r, x, y) for i, r, x, y in shown if x is not None and y is not None]
    if not points:
        raise InputError("results: expected training runs to draw, got none")
    height = max(LEAST_HEIGHT, LINE * len(points) + TOP if alone else 0)  # the key has lines
    bottom, right = height - BOTTOM, WIDTH - RIGHT - (KEY if alone else 0)
    x = _Axis([point.saved_mib for point in points], LEFT, right)
    y = _Axis([p.accuracy + s * p.spread for p in points for s in (-1, 1)], bottom, TOP)
    names = beside([row.spec for row in table])
    at = [(x(point.saved_mib), y(point.accuracy)) for point in points]
    sides = place(at, [names[p.index] for p in points], (LEFT, TOP, right + 10, bottom))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_TEMPLATE).render(
        alone=alone,
        w=WIDTH,
        h=height,
        left=LEFT,
        top=TOP,
        bottom=bottom,
        right=right,
        points=[p.drawn(names[p.index], side, x, y) for p, side in zip(points, sides, strict=True)],
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
    )


class _Axis:
    """Pixels from `start` to `end` for values, with room for what stands beside points."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        margin = (max(values) - min(values)) * 0.1 or 1.0
        self.low, self.high = min(values) - margin, max(values) + margin
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[dict[str, Any]]:
        return [{"at": self(v), "label": f"{v:g}"} for v in ticks(self.low, self.high)]


@dataclass(frozen=True)
class _Point:
    index: int
    row: Row
    saved_mib: float
    accuracy: float

    @property
    def spread(self) -> float:
        return self.row.spread or 0.0

    def drawn(self, name: str, side: str, x: _Axis, y: _Axis) -> dict[str, Any]:
        """What the template needs."""
        dx, dy = SIDES[side]
        here, there = x(self.saved_mib), y(self.accuracy)
        spread = "" if self.row.spread is None else f" ±{self.row.spread:.1f}"
        figures = f"{self.accuracy:.2f} % at {self.saved_mib:.1f} MiB"
        return {
            "x": here,
            "y": there,
            "high": y(self.accuracy + self.spread),
            "low": y(self.accuracy - self.spread),
            "colour": colour(self.index),
            "mark": SYMBOLS[symbol(self.index)][1],
            "name": name,
            "name_x": here + 12 * dx,
            "name_y": there + 4 + 18 * dy,
            "anchor": {1: "start", 0: "middle", -1: "end"}[dx],
            "title": f"{self.row.spec}: {figures}",
            "key": f"{name}  {label(self.row.spec)}" if name.isdecimal() else name,
            "note": f"{self.accuracy:.1f}{spread} %, {self.row.step_ratio:.2f} of dense's step time",
        }


def main(arguments: Sequence[str]) -> int:
    """The picture of a results.json into an SVG; returns the exit code."""
    try:
        if len(arguments) != 2:
            raise InputError("expected two arguments, RESULTS.json and PICTURE.svg")
        made = read(Path(arguments[0]))
        write_whole(Path(arguments[1]), draw(rows(made)))
    except InputError as problem:
        sys.stderr.write(f"actprune: error: {problem}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
