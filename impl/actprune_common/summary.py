"""The records of each spec of a results.json, put together."""

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
    failed: int
    """Records of kernels that did not pass their check."""
    seeds: int
    saved_mib: float | None
    saved_ratio: float | None
    step_ratio: float | None
    measured_mib: float | None
    accuracy: float | None
    spread: float | None
    """Standard deviation of the accuracy over the seeds; None for a single one."""
    delta: float | None
    """Points of accuracy against dense of the same seed, averaged."""
    cosine: float | None


def row_of(spec: str, results: Results) -> Row:
    """What the records of a spec say together."""
    runs = [record for record in results.training if record.spec == spec]
    kernels = [record for record in results.kernels if record.spec == spec]
    accuracies = [run.accuracy for run in runs]
    return Row(
        spec=spec,
        kernels={op: _ratio(kernels, op) for op in OPS},
        nbytes_ratio=_mean([record.nbytes_ratio for record in kernels if record.op == "compress"]),
        failed=sum(not record.ok for record in kernels),
        seeds=len(runs),
        saved_mib=_mean([run.saved_bytes for run in runs], 2**20),
        saved_ratio=_mean([run.saved_ratio for run in runs]),
        step_ratio=statistics.median([r.ratio_to_dense for r in runs]) if runs else None,
        measured_mib=_mean([run.measured_peak_bytes for run in runs], 2**20),
        accuracy=_mean(accuracies),
        spread=statistics.stdev(accuracies) if len(runs) > 1 else None,
        delta=_mean([run.accuracy_delta for run in runs]),
        cosine=_mean([run.grad_cosine for run in runs]),
    )


def table(results: Results) -> str:
    """A line of plain text per spec, in order of appearance; '-' where there is no figure.

    Ratios to dense of time by operation and of a step, of saved bytes; accuracy in percent.
    """
    lines = [["spec", *OPS, "failed", "step", "saved", "accuracy"]]
    specs = [k.spec for k in results.kernels] + [t.spec for t in results.training]
    for spec in dict.fromkeys(specs):
        row = row_of(spec, results)
        figures = (*row.kernels.values(), row.failed, row.step_ratio, row.saved_ratio, row.accuracy)
        lines.append([spec, *("-" if f is None else f"{round(f, 3):g}" for f in figures)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def _ratio(kernels: list[KernelRecord], op: str) -> float | None:
    found = [record.ratio_to_dense for record in kernels if record.op == op]
    known = [ratio for ratio in found if ratio is not None]
    return statistics.median(known) if known and len(known) == len(found) else None


def _mean(values: Sequence[float | None], unit: int = 1) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) / unit if known else None
