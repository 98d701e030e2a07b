"""The page's picture of what each layer's weight gradient loses: layer by format."""

import math
import statistics
from collections.abc import Sequence

import plotly.graph_objects as go

from actprune.report.figures import layout
from actprune.report.marks import label
from actprune.report.summary import rows
from actprune.results import LayerRecord, Results

BIASED = 1.5
"""A bias of so many times what noise would leave is one."""
_LITTLE_TO_MUCH = [[0, "#f7f7f7"], [0.5, "#fdae6b"], [1, "#a63603"]]
_LINE, _FRAME = 26, 96  # pixels: of a layer, and of the axis with its labels


def layers(results: Results) -> go.Figure | None:
    """Relative error of the weight gradient, over the seeds, under each format its accuracy.

    None where no record has a layer.
    """
    found: dict[str, dict[str, list[LayerRecord]]] = {}
    for run in results.training:
        for record in run.layers:
            found.setdefault(run.spec, {}).setdefault(record.layer, []).append(record)
    if not found:
        return None
    accuracies = {row.spec: row.accuracy for row in rows(results)}
    names = list(dict.fromkeys(name for of_spec in found.values() for name in of_spec))
    cells = [[found[spec].get(name, []) for spec in found] for name in names]
    errors = [[_mean(cell, "rel_error") for cell in line] for line in cells]
    figure = go.Figure(
        go.Heatmap(
            y=names,
            z=errors,
            text=[[_text(cell) for cell in line] for line in cells],
            customdata=[[_words(cell) for cell in line] for line in cells],
            texttemplate="%{text}",
            hovertemplate="%{y}: %{customdata}<extra></extra>",
            hoverongaps=False,
            colorscale=_LITTLE_TO_MUCH,
            zmin=0,
            zmax=1,
            xgap=2,
            ygap=2,
            showscale=False,
        )
    )
    layout(figure, "", "", _FRAME + _LINE * len(names))
    # places by number: two plans may have one short name
    ticks = [f"{label(spec)}<br>{accuracies[spec]:.1f} %" for spec in found]
    figure.update_xaxes(tickvals=list(range(len(ticks))), ticktext=ticks, automargin=True)
    return figure.update_yaxes(type="category", autorange="reversed", automargin=True)


def _mean(cell: Sequence[LayerRecord], figure: str) -> float | None:
    """Over the seeds; None where there is none or one is not finite."""
    values = [getattr(record, figure) for record in cell]
    return None if not values or None in values else statistics.fmean(values)


def _text(cell: Sequence[LayerRecord]) -> str:
    error = _mean(cell, "rel_error")
    if error is None:
        return "—" if cell else ""
    bias = _mean(cell, "bias") or 0.0
    biased = bias > BIASED * _noise(cell, error) and bias >= 0.005  # less is not seen in 2 digits
    return f"{error:.2f} biased" if biased else f"{error:.2f}"


def _words(cell: Sequence[LayerRecord]) -> str:
    figures = [_mean(cell, key) for key in ("cosine", "norm_ratio", "rel_error", "bias")]
    if None in figures:
        return ""
    cosine, norm, error, bias = (figure or 0.0 for figure in figures)
    return (
        f"cosine {cosine:.3f}, norm {norm:.2f} of dense's, relative error {error:.3f}, "
        f"bias {bias:.3f} after {cell[0].draws} draws, of which noise would leave "
        f"{_noise(cell, error):.3f}"
    )


def _noise(cell: Sequence[LayerRecord], error: float) -> float:
    return error / math.sqrt(cell[0].draws)
