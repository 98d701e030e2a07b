"""`actprune advise`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from actprune import parse_bytes
from actprune_bench.advise.advice import Advice, advise, recorded, sentence, settings_of
from actprune_bench.cli.common import OfImages, predicting, terminal
from actprune_bench.data import DataShape
from actprune_bench.report.table import spec_table
from actprune_common.results import read


def command(
    model: Annotated[str, typer.Option(help="resmlp_tiny, resmlp_s12, resmlp_s24, ...")],
    batch: Annotated[int, typer.Option(help="Images in a batch.", min=1)],
    budget: Annotated[str, typer.Option(help="Memory of a training step: 4GiB, 800MiB, ...")],
    channels: OfImages = 3,
    classes: OfImages = 1000,
    results: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A results.json; repeat. Else what is recorded."),
    ] = None,
) -> None:
    """Say which setting fits a budget of memory, by predicted peaks and recorded runs."""
    size = parse_bytes(budget)
    known = [setting for path in results or [] for setting in settings_of(read(path))]
    settings = known if results else recorded()
    console = terminal()
    with predicting(console) as progress:
        shape = DataShape(channels, classes)
        advice = advise(model, batch, size, settings, shape=shape, progress=progress)
    _print(advice, console)


def _print(advice: Advice, console: Console) -> None:
    """A line per setting, the least memory first, and the answer in words."""
    headings = ("peak\nMiB", "peak\n/dense", "fits", "against\ndense", "seeds", "step\n/dense")
    out = spec_table("setting", headings)
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
    console.print(sentence(advice), markup=False, soft_wrap=True)
    console.print(
        "Peaks are predicted for this model and batch. Accuracy (points, with its standard error) "
        "and time are those of recorded runs of other models and data: try the setting on yours.",
    )
