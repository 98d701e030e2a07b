"""The page's pictures, as plotly figures."""

from collections.abc import Sequence

import plotly.graph_objects as go

from actprune.formats import parse
from actprune.report.summary import Row
from actprune.results import Results

_COLOURS = ["#5b6b7b", "#d1495b", "#edae49", "#2e86ab", "#00798c", "#6a4c93", "#7cb518", "#b56576"]


def _layout(figure: go.Figure, x: str, y: str) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        xaxis_title=x,
        yaxis_title=y,
        height=470,
        margin={"l": 60, "r": 20, "t": 20, "b": 150},
        legend={"orientation": "h", "y": -0.22, "yanchor": "top"},
        paper_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
    )
    return figure


def pareto(table: Sequence[Row]) -> go.Figure:
    """Accuracy against saved bytes; bars are the spread over seeds."""
    figure = go.Figure()
    for colour, row in zip(_cycle(len(table)), table, strict=True):
        spread = [row.spread] if row.spread is not None else None
        figure.add_scatter(
            x=[row.saved_mib],
            y=[row.accuracy],
            error_y={"type": "data", "array": spread} if spread else None,
            mode="markers",
            marker={"size": 13, "color": colour},
            name=row.spec,
        )
    return _layout(figure, "saved for the backward pass, MiB", "accuracy, %")


def speed(table: Sequence[Row]) -> go.Figure:
    """Step time against saved bytes."""
    figure = go.Figure()
    for colour, row in zip(_cycle(len(table)), table, strict=True):
        figure.add_scatter(
            x=[row.saved_mib],
            y=[row.step_ratio],
            mode="markers",
            marker={"size": 13, "color": colour},
            name=row.spec,
        )
    figure.add_hline(y=1, line={"dash": "dot", "color": "#888"})
    return _layout(figure, "saved for the backward pass, MiB", "step time / dense")


def epochs(results: Results) -> go.Figure:
    """Accuracy after each epoch, a line per run."""
    specs = list(dict.fromkeys(record.spec for record in results.training))
    figure = go.Figure()
    for record in results.training:
        index = specs.index(record.spec)
        figure.add_scatter(
            x=list(range(1, record.epochs + 1)),
            y=record.accuracy_per_epoch,
            mode="lines+markers",
            line={"color": _COLOURS[index % len(_COLOURS)]},
            name=record.spec,
            legendgroup=record.spec,
            showlegend=record.seed == results.training[0].seed,
            hovertext=f"seed {record.seed}",
        )
    figure.update_xaxes(dtick=1)
    return _layout(figure, "epoch", "accuracy, %")


def heat_maps(results: Results) -> list[tuple[str, go.Figure]]:
    """Per layer: grad_weight's time as a ratio to dense, block by sparsity."""
    cells: dict[str, dict[tuple[str, float], float]] = {}
    for record in results.kernels:
        options = dict(
            part.split("=") for part in record.spec.partition(":")[2].split(",") if "=" in part
        )
        plain = record.spec.startswith("bsr") and set(options) == {"block", "sparsity"}
        if record.op == "grad_weight" and plain and record.ratio_to_dense is not None:
            shape = f"{record.rows} x {record.features}"
            layer = f"{record.layer}: X {shape}, dY {record.out_features} wide"
            key = options["block"], float(options["sparsity"])
            cells.setdefault(layer, {})[key] = record.ratio_to_dense
    return [(layer, _heat_map(found)) for layer, found in cells.items() if len(found) > 1]


def _heat_map(found: dict[tuple[str, float], float]) -> go.Figure:
    def area(block: str) -> tuple[int, int]:
        height, width = parse(f"bsr:block={block}").block  # type: ignore[attr-defined]
        return height * width, height

    blocks = sorted({block for block, _ in found}, key=area)
    sparsities = sorted({sparsity for _, sparsity in found})
    values = [[found.get((block, s)) for s in sparsities] for block in blocks]
    figure = go.Figure(
        go.Heatmap(
            x=[f"{s:.0%}" for s in sparsities],
            y=blocks,
            z=values,
            text=[["" if v is None else f"{v:.2f}" for v in line] for line in values],
            texttemplate="%{text}",
            colorscale="RdYlGn_r",
            zmid=1,
            zmin=0,
            zmax=2,
            colorbar={"title": "/ dense"},
        )
    )
    return _layout(figure, "sparsity", "block (rows x features)")


def _cycle(count: int) -> list[str]:
    return [_COLOURS[index % len(_COLOURS)] for index in range(count)]
