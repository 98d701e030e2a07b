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
    source = Path(__file__).with_name("picture.svg.j2").read_text("utf-8")
    return environment.from_string(source).render(
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
