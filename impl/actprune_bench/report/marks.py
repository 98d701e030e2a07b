"""How formats look in every picture: colour, short name, and where names stand beside points."""

import math
from collections.abc import Sequence
from contextlib import suppress

# Okabe and Ito's colours for all eyes, the pale ones darkened for white paper
COLOURS = ["#6b7785", "#d55e00", "#b8860b", "#0072b2", "#009e73", "#a8438f", "#4b3fa7", "#7a5230"]
MOST_NAMES = 8
"""Points with their names beside them; more are numbered, as in the key."""
SYMBOLS = {
    "circle": ("●", "M-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0z"),
    "square": ("■", "M-6-6h12v12h-12z"),
    "diamond": ("◆", "M0-9 9 0 0 9-9 0z"),
    "triangle-up": ("▲", "M0-8 8 6h-16z"),
    "cross": ("✚", "M-3-8h6v5h5v6h-5v5h-6v-5h-5v-6h5z"),
    "star": ("★", "M0-9 2.4-3.2 8.6-2.8 3.8 1.2 5.3 7.3 0 4-5.3 7.3-3.8 1.2-8.6-2.8-2.4-3.2z"),
    "x": ("✖", "M-8-4-4-8 0-4 4-8 8-4 4 0 8 4 4 8 0 4-4 8-8 4-4 0z"),
    "pentagon": ("⬟", "M0-8 7.6-2.5 4.7 6.5-4.7 6.5-7.6-2.5z"),
}
"""A marker by plotly's name: as a character, and as the path of an SVG around 0, 0."""

_TEXT_WIDTH, _TEXT_HEIGHT, _GAP = 7.4, 16, 11  # pixels: a letter, a line, from a point to its name
Side = tuple[int, int]
RIGHT, LEFT, ABOVE, BELOW = SIDES = (1, 0), (-1, 0), (0, -1), (0, 1)

Box = tuple[float, float, float, float]  # left, top, right, bottom


def colour(index: int) -> str:
    """The colour of a page's format by its place."""
    return COLOURS[index % len(COLOURS)]


def symbol(index: int) -> str:
    """A format's marker by its place, of SYMBOLS, another when colours repeat."""
    return list(SYMBOLS)[(index + index // len(COLOURS)) % len(SYMBOLS)]


def label(spec: str) -> str:
    """A short name: `bsr 1x32 90 % priority` for `bsr:block=1x32,sparsity=0.9,select=priority`.

    Of a plan with formats for several globs: that of the last, which most layers take, and how many
    exceptions come before it.
    """
    strategy, plus, plan = spec.rpartition("+")
    *others, last = plan.split(";")
    name = f"{strategy}{plus}" + _label(last.removeprefix("*=>").replace("=>", " "))
    return f"{name} but {len(others)}" if others else name


def beside(specs: Sequence[str]) -> list[str]:
    """What stands beside the points of a picture: short names, or numbers where they are many."""
    if len(specs) <= MOST_NAMES:
        return [label(spec) for spec in specs]
    return [str(index + 1) for index in range(len(specs))]


def _label(spec: str) -> str:
    name, _, options = spec.partition(":")
    words = [name]
    for key, _, value in (option.partition("=") for option in filter(None, options.split(","))):
        if key == "sparsity":
            with suppress(ValueError):
                value = f"{100 * float(value):.4g} %"
        words.append(value or key)
    return " ".join(words)


def place(points: Sequence[tuple[float, float]], names: Sequence[str], size: Box) -> list[Side]:
    """A side (of SIDES) for the name of each point, so that names cover as little as they can.

    Points are in pixels, y downwards; `size` is the box that names should stay in.
    """
    marks = [(x - 8, y - 8, x + 8, y + 8) for x, y in points]
    taken: list[Box] = []
    sides = []
    for index, (point, name) in enumerate(zip(points, names, strict=True)):
        others = taken + marks[:index] + marks[index + 1 :]
        boxes = {side: _box(point, name, side) for side in SIDES}
        cost = {
            side: sum(_overlap(box, other) for other in others) + 4 * _outside(box, size)
            for side, box in boxes.items()
        }
        best = min(SIDES, key=lambda side: cost[side])
        sides.append(best)
        taken.append(boxes[best])
    return sides


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers between `low` and `high`."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough)
    return [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _box(point: tuple[float, float], name: str, side: Side) -> Box:
    width = _TEXT_WIDTH * len(name)
    dx, dy = side
    x = point[0] + dx * (_GAP + width / 2)
    y = point[1] + dy * (_GAP + _TEXT_HEIGHT / 2)
    return x - width / 2, y - _TEXT_HEIGHT / 2, x + width / 2, y + _TEXT_HEIGHT / 2


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _outside(box: Box, size: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, size)
