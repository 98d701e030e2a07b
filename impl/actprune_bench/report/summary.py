"""One line per format, from the records of a results.json: what the table and the page show."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from actprune_common.results import OPS, KernelRecord, Results


@dataclass(frozen=True)
class Row:
    """A format over all layers and seeds; None where it was not measured or failed its check."""

    spec: str
    kernels: dict[str, float | None]
    """Median ratio of time to dense over the layers, by operation; None if one failed its check."""
    nbytes_ratio: float | None
    seeds: int
    saved_mib: float | None
    saved_ratio: float | None
    step_ratio: float | None
    predicted_mib: float | None
    measured_mib: float | None
    accuracy: float | None
    spread: float | None
    """Standard deviation of the accuracy over the seeds; None for a single one."""
    delta: float | None
    """Points of accuracy against dense of the same seed, averaged."""
    cosine: float | None


def rows(results: Results) -> list[Row]:
    """A row per format that was trained, or, where none was, per format that was measured fully."""
    specs = [record.spec for record in results.training]
    if not specs:
        specs = [record.spec for record in results.kernels if record.op == "linear"]
    return [_row(spec, results) for spec in dict.fromkeys(specs)]


def _row(spec: str, results: Results) -> Row:
    runs = [record for record in results.training if record.spec == spec]
    kernels = [record for record in results.kernels if record.spec == spec]
    accuracies = [run.accuracy for run in runs]
    return Row(
        spec=spec,
        kernels={op: _ratio(kernels, op) for op in OPS},
        nbytes_ratio=_mean([record.nbytes_ratio for record in kernels if record.op == "compress"]),
        seeds=len(runs),
        saved_mib=_mean([run.saved_bytes for run in runs], 2**20),
        saved_ratio=_mean([run.saved_ratio for run in runs]),
        step_ratio=statistics.median([r.ratio_to_dense for r in runs]) if runs else None,
        predicted_mib=_mean([run.predicted_peak_bytes for run in runs], 2**20),
        measured_mib=_mean([run.measured_peak_bytes for run in runs], 2**20),
        accuracy=_mean(accuracies),
        spread=statistics.stdev(accuracies) if len(runs) > 1 else None,
        delta=_mean([run.accuracy_delta for run in runs]),
        cosine=_mean([run.grad_cosine for run in runs]),
    )


@dataclass(frozen=True)
class KernelLine:
    """A format's ratios of time to dense: by layer, in the order of OPS; None where its check
    failed or it was not measured."""

    spec: str
    ratios: dict[str, list[float | None]]


def kernel_table(results: Results) -> list[KernelLine]:
    """A line per format that was measured in every operation; all lines have all layers."""
    full = [record for record in results.kernels if record.op == "linear"]
    ratios: dict[tuple[str, str, str], float | None] = {
        (record.spec, record.layer, record.op): record.ratio_to_dense for record in results.kernels
    }
    layers = list(dict.fromkeys(record.layer for record in full))
    return [
        KernelLine(spec, {layer: [ratios.get((spec, layer, op)) for op in OPS] for layer in layers})
        for spec in dict.fromkeys(record.spec for record in full)
    ]


def failures(results: Results) -> list[str]:
    """A line per format and layer that has no times and per run not done, with the reason."""
    lines = [
        f"{record.spec} at {record.layer}: no times, {record.error or 'its check failed'}"
        for record in results.kernels
        if not record.ok
    ]
    lines += [f"{r.spec}, seed {r.seed}: {r.outcome}, {r.why}" for r in results.not_done]
    return list(dict.fromkeys(lines))


def _ratio(kernels: list[KernelRecord], op: str) -> float | None:
    found = [record.ratio_to_dense for record in kernels if record.op == op]
    known = [ratio for ratio in found if ratio is not None]
    return statistics.median(known) if known and len(known) == len(found) else None


def _mean(values: Sequence[float | None], unit: int = 1) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) / unit if known else None


def headline(table: list[Row]) -> str:
    """What the figures say, in one sentence made from them."""
    dense = next((row for row in table if row.spec == "dense"), None)
    others = [row for row in table if row.spec != "dense" and row.saved_ratio is not None]
    if dense is None or dense.accuracy is None or not others:
        return "Kernels only: no training run was compared."
    best = max(others, key=lambda row: row.accuracy or 0)
    fast = min(others, key=lambda row: row.step_ratio or float("inf"))
    text = (
        f"Of the pruned formats, {best.spec} is the most accurate: {best.accuracy:.1f} % against "
        f"{dense.accuracy:.1f} % dense, keeping {best.saved_ratio:.0%} of the bytes that autograd "
        f"saves, at {best.step_ratio:.2f} of dense's step time."
    )
    if fast is not best:
        text += f" The fastest is {fast.spec}, at {fast.step_ratio:.2f} of dense's step time."
    return text
