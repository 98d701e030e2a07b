"""The commands that measure and train: compare, kernels, train, sweep, report."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actprune_bench.cli.common import (
    Formats,
    Out,
    Resume,
    command_line,
    new_folder,
    shape_of,
    terminal,
)
from actprune_common.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from actprune_bench.records.results import Results


def compare(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="A YAML file; without it, a quick comparison."
        ),
    ] = None,
    format: Formats = None,
    data: Annotated[
        str | None, typer.Option(help="embedded, fashion-mnist:DIR, cifar10:DIR or folder:DIR.")
    ] = None,
    out: Out = None,
    resume: Resume = False,
) -> None:
    """Compare formats as kernels and as training runs: a table, results.json and index.html."""
    from actprune_bench.compare import CompareConfig, open_folder, run_compare
    from actprune_common.strict_yaml import check, load_yaml

    if resume and out is None:
        raise InputError("--resume: expected --out to name the folder to go on in")
    chosen = load_yaml(config, CompareConfig) if config else None
    changes: dict[str, Any] = {"formats": format} if format else {}
    base = (chosen or CompareConfig()).values()
    if data is not None:
        changes["training"] = {**(base["training"] or {}), "data": data}
    if changes:
        chosen = check(CompareConfig, {**base, **changes})
    folder, console = out or new_folder(), terminal()
    chosen = open_folder(folder, chosen, resume=resume)
    try:
        made = run_compare(chosen, folder, command=command_line(), console=console)
    except KeyboardInterrupt:
        typer.echo(f"actprune: interrupted; {_go_on(folder)}", err=True)
        raise typer.Exit(130) from None
    _show(made, folder, console)


def kernels(
    format: Formats = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape", metavar="RxFxO", help="Rows x features x out_features; repeat for several."
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, float64, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    samples: Annotated[int, typer.Option(help="Of each operation.", min=1)] = 15,
    threads: Annotated[int | None, typer.Option(help="Of torch; its own choice without.")] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the records there.")
    ] = None,
) -> None:
    """Time compress, grad_weight and a whole linear layer, checked and interleaved."""
    import tempfile

    from actprune_bench.compare import CompareConfig, measure
    from actprune_bench.records import results
    from actprune_bench.report.table import print_table
    from actprune_common.strict_yaml import check

    if json is not None and json.exists():
        raise InputError(f"{json}: is there already; name another file")
    part: dict[str, Any] = {"samples": samples, "dtype": dtype, "device": device, "heat_map": None}
    if shape:
        part["shapes"] = [shape_of(text) for text in shape]
    values: dict[str, Any] = {"kernels": part, "training": None, "threads": threads}
    config = check(CompareConfig, values | ({"formats": format} if format else {}))
    console = terminal()
    with tempfile.TemporaryDirectory() as folder:
        made = measure(config, Path(folder), command=command_line(), console=console)
    print_table(made, console)
    if json is not None:
        results.write(json, made)


def train(
    config: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A YAML file; options go over its keys.")
    ] = None,
    spec: Annotated[str | None, typer.Option(help="The format, such as bsr:sparsity=0.9.")] = None,
    model: Annotated[str | None, typer.Option(help="resmlp_tiny, resmlp_s12, ...")] = None,
    data: Annotated[str | None, typer.Option(help="embedded, fashion-mnist:DIR, ...")] = None,
    epochs: Annotated[int | None, typer.Option()] = None,
    batch_size: Annotated[int | None, typer.Option()] = None,
    lr: Annotated[float | None, typer.Option()] = None,
    weight_decay: Annotated[float | None, typer.Option()] = None,
    warmup_epochs: Annotated[float | None, typer.Option()] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    augment: Annotated[str | None, typer.Option(help="none or crop-flip.")] = None,
    threads: Annotated[int | None, typer.Option()] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
    limit_train: Annotated[int | None, typer.Option(help="Images.")] = None,
    limit_test: Annotated[int | None, typer.Option(help="Images.")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Glob on layer names.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Glob on layer names.")] = None,
    out: Out = None,
    resume: Resume = False,
) -> None:
    """Train one run. Interrupted and resumed, it ends the same as if it had not been.

    Under torchrun the ranks train it together: docs/distributed.md.
    """
    given = dict(locals())
    from actprune_bench.training import TrainConfig, run_training
    from actprune_bench.training.distributed import world_of
    from actprune_common.strict_yaml import check, load_yaml

    if out is None and world_of(os.environ).size > 1:
        raise InputError("--out: expected with several ranks, so that a restart finds the run")
    if resume and out is None:
        raise InputError("--resume: expected --out to name the folder to go on in")
    base = load_yaml(config, TrainConfig).model_dump() if config else {}
    options = {key: given[key] for key in TrainConfig.model_fields if given[key] not in (None, [])}
    chosen = check(TrainConfig, {**base, **options})
    run_training(chosen, out or new_folder(), resume=resume, console=terminal())


def sweep(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="A YAML file (docs/sweep.md); with --resume, the folder's.",
        ),
    ] = None,
    out: Out = None,
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Of a Ray; without it, one is started here."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Cells at a time: 1; on Ray, as many as fit.", min=1)
    ] = None,
    resume: Resume = False,
) -> None:
    """Train a grid of formats, models, data and seeds, each in a process with limits.

    Finished cells are never run again. Exit code 1 where a cell failed for good.
    """
    from actprune_bench.report.table import print_table
    from actprune_bench.sweep.config import SweepConfig
    from actprune_bench.sweep.run import ENGINES, StoppedError, find_config, good, run_sweep
    from actprune_bench.sweep.watch import print_result
    from actprune_common.strict_yaml import load_yaml

    if engine not in ENGINES:
        raise InputError(f"--engine: expected {' or '.join(ENGINES)}, got {engine!r}")
    if address is not None and engine != "ray":
        raise InputError("--address: expected with --engine ray")
    if out is None and (resume or config is None):
        raise InputError("--config, --out: expected a file, or the folder to --resume in")
    chosen = load_yaml(config, SweepConfig) if config else None
    folder, console = out or new_folder(), terminal()
    chosen = find_config(folder, chosen, resume=resume)
    try:
        found = run_sweep(
            chosen,
            folder,
            words=command_line(),
            console=console,
            engine=engine,
            address=address,
            jobs=jobs,
        )
    except StoppedError as stopped:
        words = shlex.join(["actprune", "sweep", "--out", str(folder), "--resume"])
        typer.echo(f"actprune: stopped; what was done is kept: {words}", err=True)
        raise typer.Exit(128 + stopped.number) from None
    for made in found.results:  # print_result says what is not done
        print_table(made.model_copy(update={"not_done": []}), console)
    print_result(found, console)
    if not good(found, chosen):
        raise typer.Exit(1)


def report(
    files: Annotated[list[Path], typer.Argument(metavar="RESULTS.json...", help="One or several.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="For index.html; else beside the first file."),
    ] = None,
) -> None:
    """Make the table and the page of results, of several files of one machine too."""
    from actprune_bench.compare import PAGE
    from actprune_bench.records import results
    from actprune_bench.report.page import write_page

    made = results.merge([results.read(file) for file in files])
    folder = out or files[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    write_page(made, folder / PAGE)
    _show(made, folder, terminal())


def _go_on(folder: Path) -> str:
    words = shlex.join(["actprune", "compare", "--out", str(folder), "--resume"])
    return f"what was measured is kept: {words}"


def _show(made: "Results", folder: Path, console: "Console") -> None:
    from actprune_bench.compare import PAGE
    from actprune_bench.report.table import print_table

    print_table(made, console)
    console.print(f"the page: {folder / PAGE}", highlight=False, soft_wrap=True)
