"""The page's pictures that plotly draws: step times, epochs, heat maps."""

import re
from collections.abc import Sequence
from math import log2

import plotly.graph_objects as go

from actprune_bench.report.marks import colour, symbol
from actprune_common.results import Results
from actprune_common.summary import Row

_INK, _GRID = "#75818d", "rgba(128,140,152,.22)"  # readable on light and on dark ground
_PLAIN = re.compile(r"bsr:block=(?P<block>\d+x\d+),sparsity=(?P<sparsity>\d+(\.\d+)?(e-?\d+)?)")
"""Of block-sparse pruning without further options."""
_FASTER_TO_SLOWER = ["#08519c", "#6baed6", "#f7f7f7", "#fd8d3c", "#a63603"]


def _layout(figure: go.Figure, x: str, y: str, height: int) -> go.Figure:
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 58, "r": 12, "t": 12, "b": 48},
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        hoverlabel={"font": {"family": "system-ui, sans-serif"}},
    )
    lines = {"gridcolor": _GRID, "zeroline": False, "linecolor": _GRID}
    return figure.update_xaxes(title=x, **lines).update_yaxes(title=y, **lines)


def speed(table: Sequence[Row]) -> go.Figure:
    """Step time against saved bytes."""
    figure = go.Figure()
    for index, row in enumerate(table):
        figure.add_scatter(
            x=[row.saved_mib],
            y=[row.step_ratio],
            mode="markers",
            marker={"size": 13, "color": colour(index), "symbol": symbol(index)},
            name=row.spec,
            hovertemplate="%{y:.2f} of dense's step at %{x:.1f} MiB",
        )
    figure.add_hline(y=1, line={"dash": "dot", "color": _INK, "width": 1})
    return _layout(figure, "saved for the backward pass, MiB", "step time / dense", 340)


def epochs(results: Results) -> go.Figure:
    """Accuracy after each epoch, a line per run."""
    specs = list(dict.fromkeys(record.spec for record in results.training))
    figure = go.Figure()
    for record in results.training:
        index = specs.index(record.spec)
        figure.add_scatter(
            x=list(range(1, len(record.accuracy_per_epoch) + 1)),
            y=record.accuracy_per_epoch,
            mode="lines+markers",
            line={"color": colour(index), "width": 1.6},
            marker={"symbol": symbol(index), "size": 7},
            name=record.spec,
            hovertemplate=f"%{{y:.2f}} %, seed {record.seed}",
        )
    figure.update_xaxes(dtick=max(1, -(-max(r.epochs for r in results.training) // 10)))
    return _layout(figure, "epoch", "accuracy, %", 340)


def heat_maps(results: Results) -> list[tuple[str, go.Figure]]:
    """Per layer: grad_weight's time as a ratio to dense, block by sparsity."""
    layers: dict[str, dict[tuple[str, float], float]] = {}
    for record in results.kernels:
        plain = _PLAIN.fullmatch(record.spec)
        if record.op == "grad_weight" and plain and record.ratio_to_dense:
            shape = f"X {record.rows}x{record.features}, dY {record.rows}x{record.out_features}"
            cell = plain["block"], float(plain["sparsity"])
            layers.setdefault(f"{record.layer}: {shape}", {})[cell] = record.ratio_to_dense
    return [(layer, _heat_map(found)) for layer, found in layers.items() if len(found) > 1]


def _area(block: str) -> tuple[int, int]:
    height, _, width = block.partition("x")
    return int(height) * int(width), int(height)


def _heat_map(found: dict[tuple[str, float], float]) -> go.Figure:
    blocks = sorted({block for block, _ in found}, key=_area)
    sparsities = sorted({sparsity for _, sparsity in found})
    values = [[found.get((block, s)) for s in sparsities] for block in blocks]
    figure = go.Figure(
        go.Heatmap(
            x=[f"{100 * s:.4g} %" for s in sparsities],
            y=blocks,
            z=[[None if v is None else log2(v) for v in line] for line in values],
            text=[["" if v is None else f"{v:.2f}" for v in line] for line in values],
            texttemplate="%{text}",
            hovertemplate="block %{y}, sparsity %{x}: %{text} of dense's time<extra></extra>",
            colorscale=_FASTER_TO_SLOWER,
            zmin=-4,
            zmax=4,
            xgap=2,
            ygap=2,
            showscale=False,
        )
    )
    _layout(figure, "sparsity", "block, rows x features", 300)
    figure.update_xaxes(type="category")
    return figure.update_layout(margin={"l": 74}).update_yaxes(type="category")
