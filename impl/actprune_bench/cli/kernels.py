"""`actprune kernels`."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from actprune_bench.cli import common
from actprune_bench.cli.common import Formats, Json, Shapes
from actprune_bench.compare.config import CompareConfig
from actprune_bench.compare.run import measure
from actprune_bench.report.table import print_table
from actprune_common.results import write
from actprune_common.strict_yaml import check


def command(
    format: Formats = None,
    shape: Shapes = None,
    dtype: Annotated[str, typer.Option(help="float32, float64, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    samples: Annotated[int, typer.Option(help="Of each operation.", min=1)] = 15,
    threads: Annotated[int | None, typer.Option(help="Of torch; its own choice without.")] = None,
    json: Json = None,
) -> None:
    """Time compress, grad_weight and a whole linear layer, checked and interleaved."""
    part: dict[str, Any] = {"samples": samples, "dtype": dtype, "device": device, "heat_map": None}
    if shape:
        part["shapes"] = [common.shape_of(text) for text in shape]
    values: dict[str, Any] = {"kernels": part, "training": None, "threads": threads}
    config = check(CompareConfig, values | ({"formats": format} if format else {}))
    console = common.terminal()
    with tempfile.TemporaryDirectory() as folder:
        made = measure(config, Path(folder), command=common.command_line(), console=console)
    print_table(made, console)
    if json is not None:
        write(json, made)
