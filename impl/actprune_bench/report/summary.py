"""One line per format, from the records of a results.json: what the table and the page show."""

from actprune_common.results import OPS, Results
from actprune_common.summary import Row, row_of


def rows(results: Results) -> list[Row]:
    """A row per format that was trained, or, where none was, per format that was measured fully."""
    specs = [record.spec for record in results.training]
    if not specs:
        specs = [record.spec for record in results.kernels if record.op == "linear"]
    return [row_of(spec, results) for spec in dict.fromkeys(specs)]


Ratios = dict[str, list[float | None]]
"""Of time to dense: by layer, in the order of OPS; None where a check failed or it was not
measured."""


def kernel_table(results: Results) -> dict[str, Ratios]:
    """A line per format that was measured in every operation; all lines have all layers."""
    full = [record for record in results.kernels if record.op == "linear"]
    ratios: dict[tuple[str, str, str], float | None] = {
        (record.spec, record.layer, record.op): record.ratio_to_dense for record in results.kernels
    }
    layers = list(dict.fromkeys(record.layer for record in full))
    return {
        record.spec: {
            layer: [ratios.get((record.spec, layer, op)) for op in OPS] for layer in layers
        }
        for record in full
    }


def failures(results: Results) -> list[str]:
    """A line per format and layer that has no times and per run not done, with the reason."""
    lines = [
        f"{record.spec} at {record.layer}: no times, {record.error or 'its check failed'}"
        for record in results.kernels
        if not record.ok
    ]
    lines += [f"{r.spec}, seed {r.seed}: {r.outcome}, {r.why}" for r in results.not_done]
    return list(dict.fromkeys(lines))


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
