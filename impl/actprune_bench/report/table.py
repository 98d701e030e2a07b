"""The comparison as one table in the terminal."""

from collections.abc import Callable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from actprune_bench.report.summary import failures, headline, rows
from actprune_common.results import Results
from actprune_common.summary import Row

WIDE = 110
"""Terminal columns from which on all figures are shown."""


def text(value: float | None, form: str) -> str:
    """A figure, or a dash where there is none."""
    return "—" if value is None else format(value, form)


def spec_table(first: str, figures: Sequence[str], texts: Sequence[str] = ()) -> Table:
    """An empty table: a first column and others of text, which fold, and those of figures."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for heading in (first, *texts):
        table.add_column(heading, overflow="fold")
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def breakable(spec: str) -> str:
    """A spec that may go on in a new line after its parts, as rich's markup."""
    return escape(spec.replace(",", ", ").replace(";", "; "))  # a glob may have brackets


def _accuracy(row: Row) -> str:
    spread = "" if row.spread is None else f" ±{row.spread:.1f}"
    return text(row.accuracy, ".1f") + spread


_TRAINING: list[tuple[str, bool, Callable[[Row], str]]] = [
    # heading, shown in a narrow terminal too, cell
    ("saved\nMiB", False, lambda row: text(row.saved_mib, ".1f")),
    ("saved\n/dense", True, lambda row: text(row.saved_ratio, ".3f")),
    ("peak\nMiB", False, lambda row: text(row.measured_mib, ".0f")),
    ("step\n/dense", True, lambda row: text(row.step_ratio, ".2f")),
    ("accuracy\n%", True, _accuracy),
    ("against\ndense", True, lambda row: text(row.delta, "+.1f")),
    ("gradient\ncosine", False, lambda row: text(row.cosine, ".3f")),
]
_KERNELS: list[tuple[str, bool, Callable[[Row], str]]] = [
    ("store\n/dense", False, lambda row: text(row.nbytes_ratio, ".4f")),
    ("compress\n/copy", True, lambda row: text(row.kernels["compress"], ".2f")),
    ("dW\n/dense", True, lambda row: text(row.kernels["grad_weight"], ".2f")),
    ("linear\n/dense", True, lambda row: text(row.kernels["linear"], ".2f")),
]


def print_table(results: Results, console: Console) -> None:
    """Print one line per format, and below it what failed and what the figures say."""
    table = rows(results)
    columns = [*(_TRAINING if results.training else []), *_KERNELS]
    wide = console.width >= WIDE or not results.training
    columns = [column for column in columns if wide or column[1]]
    out = spec_table("format", [heading for heading, _, _ in columns])
    for row in table:
        out.add_row(breakable(row.spec), *(cell(row) for _, _, cell in columns))
    console.print(out)
    for line in failures(results):
        console.print(line, markup=False)
    if results.training:
        console.print(headline(table), markup=False)
    how = "interleaved with dense" if results.interleaved else "each in a process of its own time"
    console.print(
        f"Ratios are of this run, {how}: below 1 is less. "
        "dW is the weight gradient, linear a whole layer "
        "forward and backward; these are medians over the layers measured.",
    )
