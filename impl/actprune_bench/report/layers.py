"""What each layer's weight gradient loses: a table of format by layer."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from actprune_bench.report.summary import rows
from actprune_common.results import LayerRecord, Results

BIASED = 1.5
"""A bias of so many times what noise would leave is one."""
SEEN = 0.005
"""A bias below it does not show in two digits."""


@dataclass(frozen=True)
class LayerCell:
    """A layer of a format, over the seeds."""

    error: float | None
    """Relative error of the weight gradient; None where it is not finite."""
    biased: bool
    words: str
    """All figures."""

    @property
    def tint(self) -> float:
        """How strongly the cell is coloured, 0 to 1."""
        return min(1.0, self.error or 0.0)


@dataclass(frozen=True)
class Line:
    """A format; `cells` are those of every layer of the table, None where it is exact."""

    spec: str
    accuracy: float | None
    cells: dict[str, LayerCell | None]


def layer_table(results: Results) -> list[Line]:
    """A line per format whose gradients are approximate; none of those that nobody looked at."""
    found: dict[str, dict[str, list[LayerRecord]]] = {}
    for run in results.training:
        for record in run.layers:
            found.setdefault(run.spec, {}).setdefault(record.layer, []).append(record)
    layers = list(dict.fromkeys(name for of_spec in found.values() for name in of_spec))
    return [
        Line(row.spec, row.accuracy, {name: _cell(found[row.spec].get(name)) for name in layers})
        for row in rows(results)
        if row.spec in found
    ]


def _cell(records: Sequence[LayerRecord] | None) -> LayerCell | None:
    if not records:
        return None
    figures = [(each.cosine, each.norm_ratio, each.rel_error, each.bias) for each in records]
    if any(None in of_seed for of_seed in figures):
        return LayerCell(None, biased=False, words="not finite")
    cosine, norm, error, bias = (statistics.fmean(values) for values in zip(*figures, strict=True))
    noise = error / math.sqrt(records[0].draws)
    words = (
        f"cosine {cosine:.3f}, norm {norm:.2f} of dense's, relative error {error:.3f}, "
        f"bias {bias:.3f} over {records[0].draws} draws, of which noise would leave {noise:.3f}"
    )
    return LayerCell(error, bias > max(BIASED * noise, SEEN), words)
