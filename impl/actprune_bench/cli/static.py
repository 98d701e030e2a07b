"""`actprune static`."""

from dataclasses import asdict
from typing import Annotated

import typer

from actprune_bench.cli.common import Formats, Json, Shapes, command_line, shape_of, terminal
from actprune_bench.gpu_static.compilation import compile_all, spilling, toolchain
from actprune_bench.gpu_static.kernel_variants import DTYPES, SHAPES, named, shipped
from actprune_bench.gpu_static.sass import ARCHES
from actprune_bench.records.environment import environment
from actprune_bench.report.static import counting, print_static
from actprune_common.errors import InputError
from actprune_common.files import write_json


def command(
    arch: Annotated[
        list[int] | None, typer.Option(metavar="N", help="80, 90 or 100; repeat.")
    ] = None,
    format: Formats = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="Of --format: bfloat16, float16, float32 or tf32; repeat."),
    ] = None,
    shape: Shapes = None,
    out: Json = None,
    jobs: Annotated[int, typer.Option(help="Compilations at a time.", min=1)] = 2,
) -> None:
    """Compile every GPU kernel, without a GPU: registers, spills, instructions, occupancy.

    Exit code 1 where a kernel spills registers or does not compile.
    """
    if (dtype or shape) and not format:
        raise InputError("--format: expected with --dtype and --shape, got none")
    sizes = [(s.rows, s.features, s.out_features) for s in map(shape_of, shape or [])]
    chosen = named(format, dtype or DTYPES, sizes or SHAPES) if format else shipped()
    try:
        with counting("compiled") as progress:
            records = compile_all(chosen, arch or ARCHES, jobs, progress)
    except RuntimeError as problem:
        typer.echo(f"actprune: error: {problem}", err=True)
        raise typer.Exit(1) from None
    print_static(records, terminal())
    if out is not None:
        about = environment(command_line()) | toolchain()
        write_json(out, {"schema": 1, "environment": about, "records": list(map(asdict, records))})
    if spilling(records):
        raise typer.Exit(1)
