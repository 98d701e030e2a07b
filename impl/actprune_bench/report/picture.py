"""The Pareto picture as an SVG, in the page and alone for a README.

python -m actprune_bench.report.picture results.json picture.svg
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from actprune_bench.report.marks import SYMBOLS, beside, colour, label, place, symbol, ticks
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
{% endif %}{% for t in y.ticks() %}<line class="grid" x1="{{ x.start }}" x2="{{ x.end }}" y1="{{ t.at }}" y2="{{ t.at }}" stroke="#e4e9ee"/>
<text class="tick" x="{{ x.start - 10 }}" y="{{ t.at + 4 }}" text-anchor="end" fill="#5b6b7b">{{ t.label }}</text>
{% endfor %}{% for t in x.ticks() %}<line class="grid" x1="{{ t.at }}" x2="{{ t.at }}" y1="{{ y.end }}" y2="{{ y.start }}" stroke="#e4e9ee"/>
<text class="tick" x="{{ t.at }}" y="{{ h - 36 }}" text-anchor="middle" fill="#5b6b7b">{{ t.label }}</text>
{% endfor %}<text class="ink" x="{{ (x.start + x.end) / 2 }}" y="{{ h - 12 }}" text-anchor="middle" fill="#1c2733">saved for the backward pass, MiB</text>
<text class="ink" transform="translate(18 {{ (y.end + y.start) / 2 }}) rotate(-90)" text-anchor="middle" fill="#1c2733">accuracy, %</text>
{% for p in points %}<g class="point"><title>{{ p.row.spec }}: {{ "%.2f %% at %.1f MiB"|format(p.accuracy, p.saved_mib) }}</title>
<line x1="{{ x(p.saved_mib) }}" x2="{{ x(p.saved_mib) }}" y1="{{ y(p.accuracy + p.spread) }}" y2="{{ y(p.accuracy - p.spread) }}" stroke="{{ p.colour }}" stroke-width="2"/>
<path d="{{ p.mark }}" transform="translate({{ x(p.saved_mib) }} {{ y(p.accuracy) }})" fill="{{ p.colour }}"/>
{% set dx, dy = sides[loop.index0] %}<text class="name" x="{{ x(p.saved_mib) + 12 * dx }}" y="{{ y(p.accuracy) + 4 + 18 * dy }}" text-anchor="{{ {1: "start", 0: "middle", -1: "end"}[dx] }}" fill="{{ p.colour }}" font-size="12.5">{{ p.name }}</text></g>
{% if alone %}<path d="{{ p.mark }}" transform="translate({{ x.end + 34 }} {{ 46 + 48 * loop.index0 }})" fill="{{ p.colour }}"/>
<text x="{{ x.end + 48 }}" y="{{ 50 + 48 * loop.index0 }}" fill="#1c2733">{{ p.name }}{% if p.name.isdecimal() %}  {{ p.row.spec|label }}{% endif %}</text>
<text x="{{ x.end + 48 }}" y="{{ 67 + 48 * loop.index0 }}" fill="#5b6b7b" font-size="12">{{ "%.1f"|format(p.accuracy) }}{% if p.row.spread is not none %} ±{{ "%.1f"|format(p.spread) }}{% endif %} %, {{ "%.2f"|format(p.row.step_ratio) }} of dense's step time</text>
{% endif %}{% endfor %}</svg>
"""


def draw(table: Sequence[Row], *, alone: bool = True) -> str:
    """Accuracy against saved bytes, a labelled point a format; bars are the spread over seeds.

    alone: on white ground and with a key, for a README; else bare, for a page that has both.
    Raises InputError where nothing was trained.
    """
    names = beside([row.spec for row in table])
    marks = [(names[i], colour(i), SYMBOLS[symbol(i)][1]) for i in range(len(table))]
    points = [
        _Point(row, row.saved_mib, row.accuracy, row.spread or 0.0, *mark)
        for row, mark in zip(table, marks, strict=True)
        if row.saved_mib is not None and row.accuracy is not None
    ]
    if not points:
        raise InputError("results: expected training runs to draw, got none")
    height = max(LEAST_HEIGHT, LINE * len(points) + TOP if alone else 0)  # the key has lines
    bottom, right = height - BOTTOM, WIDTH - RIGHT - (KEY if alone else 0)
    x = _Axis([point.saved_mib for point in points], LEFT, right)
    y = _Axis([p.accuracy + s * p.spread for p in points for s in (-1, 1)], bottom, TOP)
    at = [(x(point.saved_mib), y(point.accuracy)) for point in points]
    sides = place(at, [point.name for point in points], (LEFT, TOP, right + 10, bottom))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["label"] = label
    return environment.from_string(_TEMPLATE).render(
        alone=alone, w=WIDTH, h=height, points=points, sides=sides, x=x, y=y
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
    row: Row
    saved_mib: float
    accuracy: float
    spread: float
    name: str
    colour: str
    mark: str


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
