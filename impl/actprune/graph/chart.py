"""The bytes alive over a step, dense and planned, as an SVG."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from actprune.graph.plan import GraphPlan, mib

_WIDTH, _HEIGHT = 1120, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 1108, 34, 304
"""Edges of the plot."""
_LABEL = 150
"""Pixels that a peak's text takes, with some air."""


class Curve(NamedTuple):
    """Bytes alive after each operator, of which the first `forward` are the forward pass's."""

    name: str
    points: Sequence[int]
    forward: int

    @property
    def share(self) -> float:
        """Of the operators, those of the forward pass."""
        return self.forward / len(self.points)


def ticks(top: float, most: int = 6) -> list[float]:
    """Return round numbers from 0 to `top` or beyond, a multiple of 1, 2 or 5 of a power of 10.

    Example:
        >>> ticks(130), ticks(0.7)
        ([0, 50, 100, 150], [0.0, 0.2, 0.4, 0.6, 0.8])
    """
    power = 10.0 ** math.floor(math.log10(top / most)) if top > 0 else 1.0
    step = next(power * times for times in (1, 2, 5, 10, 20) if power * times * most >= top)
    step = int(step) if step >= 1 else step
    return [round(place * step, 12) for place in range(max(1, math.ceil(top / step)) + 1)]


def chart(graph: GraphPlan) -> str:
    """Return an SVG of a plan's timelines; an empty text where it has none.

    The forward pass takes the same width in both curves, and so does the backward pass.
    """
    curves = [
        Curve("dense", graph.dense_timeline, graph.dense_forward),
        Curve("planned", graph.timeline, graph.forward),
    ]
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return ""
    scale = ticks(max(max(curve.points) for curve in curves) / 2**20)
    middle = sum(curve.share for curve in curves) / len(curves)
    told = "; ".join(f"{curve.name}: peak {mib(max(curve.points))} MiB" for curve in curves)
    return "\n".join(
        [
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg">',
            f"<title>Bytes alive over the step; {told}</title>",
            *_axis(scale),
            *(_drawn(curve, middle, scale[-1]) for curve in curves),
            *_passes(curves, middle),
            *_peaks(curves, middle, scale[-1]),
            "</svg>",
        ]
    )


def _x(share: float) -> float:
    return _LEFT + share * (_RIGHT - _LEFT)


def _y(nbytes: float, top: float) -> float:
    return _BOTTOM - nbytes / 2**20 / top * (_BOTTOM - _TOP)


def _edges(curve: Curve, middle: float) -> list[float]:
    """Where each operator begins, and the last ends."""
    forward, backward = curve.forward, len(curve.points) - curve.forward
    first = [_x(middle * place / forward) for place in range(forward)]
    rest = [_x(middle + (1 - middle) * place / backward) for place in range(backward)]
    return [*first, *rest, _x(1.0 if backward else middle)]


def _drawn(curve: Curve, middle: float, top: float) -> str:
    edges, steps, last = _edges(curve, middle), [], ""
    for x, nbytes in zip(edges, curve.points, strict=False):
        height = f"{_y(nbytes, top):.1f}"
        if height != last:  # level stretches are one line
            steps.append(f"H{x:.1f}V{height}")
        last = height
    line = "".join([*steps, f"H{edges[-1]:.1f}"]).partition("V")[2]
    begin = f"{edges[0]:.1f}"
    area = f"M{begin} {_BOTTOM}V{line}V{_BOTTOM}Z"
    return f'<path class="area {curve.name}" d="{area}"/>\n' + (
        f'<path class="line {curve.name}" d="M{begin} {line}"/>'
    )


def _axis(scale: Sequence[float]) -> list[str]:
    lines = [f'<text class="soft" x="{_LEFT - 8}" y="{_TOP - 14}" text-anchor="end">MiB</text>']
    for tick in scale:
        y = f"{_y(tick * 2**20, scale[-1]):.1f}"
        lines.append(f'<path class="grid" d="M{_LEFT} {y}H{_RIGHT}"/>')
        text = f'y="{y}" dy=".35em" text-anchor="end"'
        lines.append(f'<text class="soft" x="{_LEFT - 8}" {text}>{tick:g}</text>')
    return lines


def _passes(curves: Sequence[Curve], middle: float) -> list[str]:
    """The names of the two passes below their parts, and the line between them."""
    lines = []
    parts = [("forward", 0.0, middle), ("backward", middle, 1.0)]
    parts = [part for part in parts if part[1] < part[2]]
    for name, begin, end in parts:
        x = f'x="{_x((begin + end) / 2):.1f}" y="{_BOTTOM + 22}" text-anchor="middle"'
        lines.append(f'<text class="soft" {x}>{name} pass</text>')
    for (_, _, end), _ in pairwise(parts):
        lines.append(f'<path class="between" d="M{_x(end):.1f} {_TOP - 14}V{_BOTTOM + 26}"/>')
    return lines


def _peaks(curves: Sequence[Curve], middle: float, top: float) -> list[str]:
    """A mark at the top of each curve, with its bytes."""
    lines: list[str] = []
    taken: list[tuple[float, float]] = []
    for curve in curves:
        peak = max(curve.points)
        place = curve.points.index(peak)
        edges = _edges(curve, middle)
        x, y = (edges[place] + edges[place + 1]) / 2, _y(peak, top)
        anchor = "start" if x < _LEFT + _LABEL else "end" if x > _RIGHT - _LABEL else "middle"
        near = any(abs(x - other) < _LABEL and abs(y - level) < 20 for other, level in taken)
        taken.append((x, y))
        lines.append(f'<circle class="mark {curve.name}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        at = f'x="{x:.1f}" y="{y + (20 if near else -10):.1f}" text-anchor="{anchor}"'
        lines.append(f'<text class="peak {curve.name}" {at}>{mib(peak)} MiB</text>')
    return lines
