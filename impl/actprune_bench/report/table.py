"""The comparison as one table in the terminal."""

from collections.abc import Callable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from actprune_bench.advise import planning
from actprune_bench.advise.advice import Advice, sentence
from actprune_bench.records.results import Results
from actprune_bench.report.summary import Row, failures, headline, interleaved, rows

WIDE = 110
"""Terminal columns from which on all figures are shown."""


def text(value: float | None, form: str) -> str:
    """A figure, or a dash where there is none."""
    return "—" if value is None else format(value, form)


def _accuracy(row: Row) -> str:
    spread = "" if row.spread is None else f" ±{row.spread:.1f}"
    return text(row.accuracy, ".1f") + spread


def _kernel(op: str) -> Callable[[Row], str]:
    return lambda row: text(row.kernels[op], ".2f")


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
    ("compress\n/copy", True, _kernel("compress")),
    ("dW\n/dense", True, _kernel("grad_weight")),
    ("linear\n/dense", True, _kernel("linear")),
]


def print_table(results: Results, console: Console) -> None:
    """Print one line per format, and below it what failed and what the figures say."""
    table = rows(results)
    columns = [*(_TRAINING if results.training else []), *_KERNELS]
    wide = console.width >= WIDE or not results.training
    columns = [column for column in columns if wide or column[1]]
    out = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    out.add_column("format", overflow="fold")
    for heading, _, _ in columns:
        out.add_column(heading, justify="right", no_wrap=True)
    for row in table:
        spec = escape(row.spec.replace(",", ", ").replace(";", "; "))  # a glob may have brackets
        out.add_row(spec, *(cell(row) for _, _, cell in columns))
    console.print(out)
    for line in failures(results):
        console.print(line, highlight=False, markup=False)
    if results.training:
        console.print(headline(table), highlight=False, markup=False)
    how = "interleaved with dense" if interleaved(results) else "each in a process of its own time"
    console.print(
        f"Ratios are of this run, {how}: below 1 is less. "
        "dW is the weight gradient, linear a whole layer "
        "forward and backward; these are medians over the layers measured.",
        highlight=False,
    )


def print_advice(advice: Advice, console: Console) -> None:
    """Print a line per setting, the least memory first, and the answer in words."""
    out = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    out.add_column("setting", overflow="fold")
    for heading in ("peak\nMiB", "peak\n/dense", "fits", "against\ndense", "seeds", "step\n/dense"):
        out.add_column(heading, justify="right", no_wrap=True)
    for option in advice.options:
        setting = option.setting
        error = "" if setting.error is None else f" ±{setting.error:.2f}"
        out.add_row(
            setting.spec.replace(",", ", "),
            f"{option.peak / 2**20:,.0f}",
            f"{option.peak / advice.dense_peak:.3f}",
            "yes" if option.fits else "no",
            f"{setting.delta:+.2f}{error}",
            str(setting.seeds or "—"),
            f"{setting.step_ratio:.2f}",
        )
    console.print(out)
    console.print(sentence(advice), highlight=False, markup=False, soft_wrap=True)
    console.print(
        "Peaks are predicted for this model and batch. Accuracy (points, with its standard error) "
        "and time are those of recorded runs of other models and data: try the setting on yours.",
        highlight=False,
    )


def print_plan(
    setup: planning.Setup, planned: Sequence[planning.Planned], console: Console
) -> None:
    """Print a line per spec, the least memory first, the answer in words and what is assumed."""
    out = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    out.add_column("spec", overflow="fold")
    for heading in ("peak per\ndevice MiB", "of its\nmemory", "fits", "largest\nbatch"):
        out.add_column(heading, justify="right", no_wrap=True)
    for one in planned:
        out.add_row(
            escape(one.spec.replace(",", ", ").replace(";", "; ")),
            f"{one.peak / 2**20:,.0f}",
            f"{one.peak / setup.memory:.1%}",
            "yes" if one.fits else "no",
            f"{one.largest_batch:,}" if one.largest_batch else "none",
        )
    console.print(out)
    console.print(planning.sentence(setup, planned), highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"Assumed: {planning.ASSUMED[setup.parallel]}. Not in it: what a CUDA context, the "
        "communication library and fragmentation take, so leave them some room.",
        highlight=False,
    )
