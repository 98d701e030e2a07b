"""The comparison as one table in the terminal."""

from rich.console import Console
from rich.table import Table

from actprune.report.summary import OPS, headline, rows
from actprune.results import Results


def print_table(results: Results, console: Console) -> None:
    """Print one line per format, and below it what failed."""
    table = rows(results)
    trained = bool(results.training)
    out = Table(title=None, header_style="bold", pad_edge=False)
    out.add_column("format", overflow="fold", min_width=22)
    if trained:
        for name in ("saved\nMiB", "saved\n/ dense", "step\n/ dense", "peak\nMiB", "accuracy\n%"):
            out.add_column(name, justify="right")
        out.add_column("against\ndense", justify="right")
        out.add_column("gradient\ncosine", justify="right")
    else:
        out.add_column("bytes\n/ dense", justify="right")
    for op in OPS:
        out.add_column(f"{op}\n/ dense", justify="right")
    for row in table:
        cells = [row.spec]
        if trained:
            accuracy = text(row.accuracy, ".1f")
            if row.spread is not None:
                accuracy += f" ±{row.spread:.1f}"
            cells += [
                text(row.saved_mib, ".1f"),
                text(row.saved_ratio, ".3f"),
                text(row.step_ratio, ".2f"),
                text(row.measured_mib, ".0f"),
                accuracy,
                text(row.delta, "+.1f"),
                text(row.cosine, ".3f"),
            ]
        else:
            cells.append(text(row.nbytes_ratio, ".4f"))
        out.add_row(*cells, *(text(row.kernels[op], ".2f") for op in OPS))
    console.print(out)
    for row in table:
        if row.problem:
            console.print(f"{row.spec}: no times, {row.problem}", highlight=False, markup=False)
    if trained:
        console.print(headline(table), highlight=False, markup=False)
    console.print(
        "Ratios are of this run, interleaved with dense; below 1 is less. "
        "compress / dense compares with one copy of X.",
        highlight=False,
    )


def text(value: float | None, form: str) -> str:
    """A figure, or a dash where there is none."""
    return "—" if value is None else format(value, form)
