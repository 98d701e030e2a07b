"""`actprune plan`."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from actprune import parse_bytes
from actprune_bench.advise import planning
from actprune_bench.advise.factory import given, images, is_factory
from actprune_bench.advise.planning import Planned, Setup
from actprune_bench.cli import common
from actprune_bench.cli.common import Batch, Formats, Json, Model, OfImages
from actprune_bench.data import DataShape
from actprune_bench.report.table import breakable, spec_table


def command(
    model: Model,
    device_memory: Annotated[str, typer.Option(metavar="SIZE", help="Of each: 80GiB, 800MiB, ...")],
    batch: Batch = None,
    devices: Annotated[int, typer.Option(help="GPUs, or other devices of equal size.")] = 1,
    parallel: Annotated[str, typer.Option(help="none, ddp or fsdp.")] = "none",
    format: Formats = None,
    channels: OfImages = 3,
    classes: OfImages = 1000,
    json: Json = None,
) -> None:
    """Predict each format's peak per device, without a GPU, and the largest batch that fits.

    Example: actprune plan --model my.models:vit --batch 64x3x224x224 --device-memory 24GiB
    """
    memory = parse_bytes(device_memory, "device-memory")
    own = given(model, batch) if is_factory(model) else None
    count = images(batch) if own is None else own.count
    setup = Setup(model, count, devices, parallel, memory, DataShape(channels, classes), own)
    console = common.terminal()
    with common.predicting(console) as progress:
        planned = planning.plan(setup, format or planning.default_specs(own), progress=progress)
    _print(setup, planned, console)
    if json is not None:
        json.write_text(planning.dumped(setup, planned), encoding="utf-8")


def _print(setup: Setup, planned: Sequence[Planned], console: Console) -> None:
    """A line per spec, the least memory first, the answer in words and what is assumed."""
    out = spec_table("spec", ("peak per\ndevice MiB", "of its\nmemory", "fits", "largest\nbatch"))
    for one in planned:
        out.add_row(
            breakable(one.spec),
            f"{one.peak / 2**20:,.0f}",
            f"{one.peak / setup.memory:.1%}",
            "yes" if one.fits else "no",
            f"{one.largest_batch:,}" if one.largest_batch else "none",
        )
    console.print(out)
    console.print(planning.sentence(setup, planned), markup=False, soft_wrap=True)
    console.print(
        f"Assumed: {planning.ASSUMED[setup.parallel]}. Not in it: what a CUDA context, the "
        "communication library and fragmentation take, so leave them some room.",
    )
