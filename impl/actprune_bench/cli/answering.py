"""The commands that answer without a run: advise, plan, doctor, static."""

from pathlib import Path
from typing import Annotated

import typer

from actprune_bench.cli.common import Formats, command_line, shape_of, terminal
from actprune_common.errors import InputError


def advise(
    model: Annotated[str, typer.Option(help="resmlp_tiny, resmlp_s12, resmlp_s24, ...")],
    batch: Annotated[int, typer.Option(help="Images in a batch.", min=1)],
    budget: Annotated[str, typer.Option(help="Memory of a training step: 4GiB, 800MiB, ...")],
    channels: Annotated[int, typer.Option(help="Of the images.", min=1)] = 3,
    classes: Annotated[int, typer.Option(help="Of the images.", min=1)] = 1000,
    results: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A results.json; repeat. Else what is recorded."),
    ] = None,
) -> None:
    """Say which setting fits a budget of memory, by predicted peaks and recorded runs."""
    from actprune import parse_bytes
    from actprune_bench.advise import advice as advising
    from actprune_bench.data import DataShape
    from actprune_bench.records.results import read
    from actprune_bench.report.table import print_advice

    size = parse_bytes(budget)
    files = [read(path) for path in results or []]
    known = [setting for file in files for setting in advising.settings_of(file)]
    console = terminal()
    with console.status("predicting peaks") as status:
        advice = advising.advise(
            model,
            batch,
            size,
            known if files else advising.recorded(),
            shape=DataShape(channels, classes),
            progress=lambda spec: status.update(f"predicting the peak of {spec}"),
        )
    print_advice(advice, console)


def plan(
    model: Annotated[str, typer.Option(help="resmlp_tiny, resmlp_s12, resmlp_b24, ...")],
    batch: Annotated[int, typer.Option(help="Images in a batch, over all devices.")],
    device_memory: Annotated[str, typer.Option(metavar="SIZE", help="Of each: 80GiB, 800MiB, ...")],
    devices: Annotated[int, typer.Option(help="GPUs, or other devices of equal size.")] = 1,
    parallel: Annotated[str, typer.Option(help="none, ddp or fsdp.")] = "none",
    format: Formats = None,
    channels: Annotated[int, typer.Option(help="Of the images.", min=1)] = 3,
    classes: Annotated[int, typer.Option(help="Of the images.", min=1)] = 1000,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the plan there.")
    ] = None,
) -> None:
    """Predict each format's peak per device, without a GPU, and the largest batch that fits."""
    from actprune import parse_bytes
    from actprune_bench.advise import planning
    from actprune_bench.data import DataShape
    from actprune_bench.report.table import print_plan

    if json is not None and json.exists():
        raise InputError(f"{json}: is there already; name another file")
    if json is not None and not json.absolute().parent.is_dir():
        raise InputError(f"{json}: its folder is not there")
    memory = parse_bytes(device_memory, "device-memory")
    setup = planning.Setup(model, batch, devices, parallel, memory, DataShape(channels, classes))
    console = terminal()
    with console.status("predicting peaks") as status:
        planned = planning.plan(
            setup,
            format or planning.default_specs(),
            progress=lambda spec: status.update(f"predicting the peak of {spec}"),
        )
    print_plan(setup, planned, console)
    if json is not None:
        json.write_text(planning.dumped(setup, planned), encoding="utf-8")


def doctor() -> None:
    """Say what this machine can run."""
    from actprune_bench.records.environment import backends, environment, version

    found = environment(command_line())
    for key in ("actprune", "python", "torch", "platform", "cpu", "isa", "cores", "threads"):
        typer.echo(f"{key:14} {found[key]}")
    typer.echo(f"{'memory':14} {int(str(found['memory_bytes'])) / 2**30:.0f} GiB")
    typer.echo(f"{'gpu':14} {found['gpu'] or 'none that torch can use'}")
    for package in ("triton", "cupy-cuda13x", "ray"):
        typer.echo(f"{package:14} {version(package) or 'not installed (optional)'}")
    for line in backends():
        typer.echo(line)


def static(
    arch: Annotated[
        list[int] | None, typer.Option("--arch", metavar="N", help="80, 90 or 100; repeat.")
    ] = None,
    format: Formats = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="Of --format: bfloat16, float16, float32 or tf32; repeat."),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="RxFxO", help="Of --format; repeat for several."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the records there, as JSON.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Compilations at a time.", min=1)] = 2,
) -> None:
    """Compile every GPU kernel, without a GPU: registers, spills, instructions, occupancy.

    Exit code 1 where a kernel spills registers or does not compile.
    """
    from actprune_bench.gpu_static import compilation as measuring
    from actprune_bench.gpu_static.kernel_variants import DTYPES, SHAPES, named, shipped
    from actprune_bench.gpu_static.sass import ARCHES
    from actprune_bench.records.environment import environment
    from actprune_bench.report.static import counting, print_static

    if out is not None and out.exists():
        raise InputError(f"{out}: is there already; name another file")
    if (dtype or shape) and not format:
        raise InputError("--format: expected with --dtype and --shape, got none")
    sizes = [(s.rows, s.features, s.out_features) for s in map(shape_of, shape or [])]
    measuring.check_able(arch or ARCHES)
    chosen = named(format, dtype or DTYPES, sizes or SHAPES) if format else shipped()
    try:
        with counting("compiled") as progress:
            records = measuring.compile_all(chosen, arch or ARCHES, jobs=jobs, progress=progress)
    except RuntimeError as problem:
        typer.echo(f"actprune: error: {problem}", err=True)
        raise typer.Exit(1) from None
    print_static(records, terminal())
    if out is not None:
        found = environment(command_line()) | measuring.toolchain()
        measuring.write_records(out, records, found)
    if measuring.spilling(records):
        raise typer.Exit(1)
