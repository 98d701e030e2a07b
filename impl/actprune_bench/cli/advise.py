"""`actprune advise`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from actprune import parse_bytes
from actprune_bench.advise.advice import Advice, advise, chosen, recorded, sentence, settings_of
from actprune_bench.advise.factory import given, images, is_factory
from actprune_bench.cli.common import Batch, Model, OfImages, predicting, terminal
from actprune_bench.data import DataShape
from actprune_bench.report.table import spec_table
from actprune_common.errors import InputError
from actprune_common.results import read


def command(
    model: Model,
    budget: Annotated[str, typer.Option(help="Memory of a training step: 4GiB, 800MiB, ...")],
    batch: Batch = None,
    channels: OfImages = 3,
    classes: OfImages = 1000,
    results: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A results.json; repeat. Else what is recorded."),
    ] = None,
) -> None:
    """Say which setting fits a budget of memory, by predicted peaks and recorded runs.

    For a model of your own it chooses one, kind by kind, by the error of the gradients.

    Example: actprune advise --model my.models:vit --batch 64x3x224x224 --budget 24GiB
    """
    size = parse_bytes(budget)
    if is_factory(model):
        if results:
            raise InputError("results: expected none for a model of your own, whose error is seen")
        own, console = given(model, batch), terminal()
        with console.status("measuring what each choice costs"):
            said = chosen(own, size)
        console.print(said, markup=False, soft_wrap=True)
        return
    count = images(batch)
    known = [setting for path in results or [] for setting in settings_of(read(path))]
    settings = known if results else recorded()
    console = terminal()
    with predicting(console) as progress:
        shape = DataShape(channels, classes)
        advice = advise(model, count, size, settings, shape=shape, progress=progress)
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
