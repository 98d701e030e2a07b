"""The command line: compare, kernels, train, sweep, report, advise, plan, doctor, static."""

import functools
import os
import shlex
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from actprune.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from actprune.compare import ShapeConfig
    from actprune.results import Results

Command = TypeVar("Command", bound=Callable[..., None])

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compare dense, COO, CSR and block-sparse activation pruning: memory, speed, accuracy.",
)
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", metavar="SPEC", help="Such as bsr:block=1x32,sparsity=0.9; repeat."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Folder for the results; without it, results/ and the time."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what the folder holds.")]


def _command(function: Command) -> Command:
    """A command whose bad input is one line and exit code 2, and whose Ctrl-C is one line."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except (InputError, OSError) as problem:
            text = " ".join(str(problem).split())
            typer.echo(f"actprune: error: {text}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("actprune: interrupted", err=True)
            raise typer.Exit(130) from None

    return app.command()(guarded)  # type: ignore[return-value]


def _version(value: bool) -> None:
    if value:
        import actprune

        typer.echo(f"actprune {actprune.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@_command
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
    from actprune.compare import CompareConfig, open_folder, run_compare
    from actprune.config import check, load_yaml

    if resume and out is None:
        raise InputError("--resume: expected --out to name the folder to go on in")
    chosen = load_yaml(config, CompareConfig) if config else None
    changes: dict[str, Any] = {"formats": format} if format else {}
    base = (chosen or CompareConfig()).values()
    if data is not None:
        changes["training"] = {**(base["training"] or {}), "data": data}
    if changes:
        chosen = check(CompareConfig, {**base, **changes})
    folder, console = out or _new_folder(), _console()
    chosen = open_folder(folder, chosen, resume=resume)
    try:
        made = run_compare(chosen, folder, command=_words(), console=console)
    except KeyboardInterrupt:
        typer.echo(f"actprune: interrupted; {_go_on(folder)}", err=True)
        raise typer.Exit(130) from None
    _show(made, folder, console)


@_command
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

    from actprune import results
    from actprune.compare import CompareConfig, measure
    from actprune.config import check
    from actprune.report.table import print_table

    if json is not None and json.exists():
        raise InputError(f"{json}: is there already; name another file")
    part: dict[str, Any] = {"samples": samples, "dtype": dtype, "device": device, "heat_map": None}
    if shape:
        part["shapes"] = [_shape(text) for text in shape]
    values: dict[str, Any] = {"kernels": part, "training": None, "threads": threads}
    config = check(CompareConfig, values | ({"formats": format} if format else {}))
    console = _console()
    with tempfile.TemporaryDirectory() as folder:
        made = measure(config, Path(folder), command=_words(), console=console)
    print_table(made, console)
    if json is not None:
        results.write(json, made)


@_command
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
    from actprune.config import check, load_yaml
    from actprune.training import TrainConfig, run_training
    from actprune.training.distributed import world_of

    if out is None and world_of(os.environ).size > 1:
        raise InputError("--out: expected with several ranks, so that a restart finds the run")
    if resume and out is None:
        raise InputError("--resume: expected --out to name the folder to go on in")
    base = load_yaml(config, TrainConfig).model_dump() if config else {}
    options = {key: given[key] for key in TrainConfig.model_fields if given[key] not in (None, [])}
    chosen = check(TrainConfig, {**base, **options})
    run_training(chosen, out or _new_folder(), resume=resume, console=_console())


@_command
def sweep(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="A YAML file (docs/sweep.md); not with --resume."
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
    from actprune.config import load_yaml
    from actprune.report.table import print_table
    from actprune.sweep.config import SweepConfig
    from actprune.sweep.run import ENGINES, good, open_folder, run_sweep
    from actprune.sweep.watch import print_found

    if engine not in ENGINES:
        raise InputError(f"--engine: expected {' or '.join(ENGINES)}, got {engine!r}")
    if address is not None and engine != "ray":
        raise InputError("--address: expected with --engine ray")
    if out is None and (resume or config is None):
        raise InputError("--config, --out: expected a file, or the folder to --resume in")
    chosen = load_yaml(config, SweepConfig) if config else None
    folder, console = out or _new_folder(), _console()
    chosen = open_folder(folder, chosen, resume=resume)
    found = run_sweep(
        chosen,
        folder,
        words=_words(),
        console=console,
        engine=engine,
        address=address,
        jobs=jobs,
    )
    if isinstance(found, int):
        words = shlex.join(["actprune", "sweep", "--out", str(folder), "--resume"])
        typer.echo(f"actprune: stopped; what was done is kept: {words}", err=True)
        raise typer.Exit(128 + found)
    for made in found.results:  # print_found says what is not done
        print_table(made.model_copy(update={"not_done": []}), console)
    print_found(found, console)
    if not good(found, chosen):
        raise typer.Exit(1)


@_command
def report(
    files: Annotated[list[Path], typer.Argument(metavar="RESULTS.json...", help="One or several.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="For index.html; else beside the first file."),
    ] = None,
) -> None:
    """Make the table and the page of results, of several files of one machine too."""
    from actprune import results
    from actprune.compare import PAGE
    from actprune.report.page import write_page

    made = results.merge([results.read(file) for file in files])
    folder = out or files[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    write_page(made, folder / PAGE)
    _show(made, folder, _console())


@_command
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
    from actprune import advise as advising
    from actprune.data import DataShape
    from actprune.report.table import print_advice
    from actprune.results import read

    size = advising.parse_budget(budget)
    files = [read(path) for path in results or []]
    known = [setting for file in files for setting in advising.settings_of(file)]
    console = _console()
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


@_command
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
    from actprune import planning
    from actprune.advise import parse_budget
    from actprune.data import DataShape
    from actprune.report.table import print_plan

    if json is not None and json.exists():
        raise InputError(f"{json}: is there already; name another file")
    memory = parse_budget(device_memory, "device-memory")
    setup = planning.Setup(model, batch, devices, parallel, memory, DataShape(channels, classes))
    console = _console()
    with console.status("predicting peaks") as status:
        planned = planning.plan(
            setup,
            format or planning.default_specs(),
            progress=lambda spec: status.update(f"predicting the peak of {spec}"),
        )
    print_plan(setup, planned, console)
    if json is not None:
        json.write_text(planning.dumped(setup, planned), encoding="utf-8")


@_command
def doctor() -> None:
    """Say what this machine can run."""
    from actprune.environment import backends, environment, version

    found = environment(_words())
    for key in ("actprune", "python", "torch", "platform", "cpu", "isa", "cores", "threads"):
        typer.echo(f"{key:14} {found[key]}")
    typer.echo(f"{'memory':14} {int(str(found['memory_bytes'])) / 2**30:.0f} GiB")
    typer.echo(f"{'gpu':14} {found['gpu'] or 'none that torch can use'}")
    for package in ("triton", "cupy-cuda13x", "ray"):
        typer.echo(f"{package:14} {version(package) or 'not installed (optional)'}")
    for line in backends():
        typer.echo(line)


@_command
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
    from actprune.environment import environment
    from actprune.measuring import static as measuring
    from actprune.measuring.sass import ARCHES
    from actprune.measuring.variants import DTYPES, SHAPES, named, shipped
    from actprune.report.static import counting, print_static

    if out is not None and out.exists():
        raise InputError(f"{out}: is there already; name another file")
    if (dtype or shape) and not format:
        raise InputError("--format: expected with --dtype and --shape, got none")
    sizes = [(s.rows, s.features, s.out_features) for s in map(_shape, shape or [])]
    measuring.check_able(arch or ARCHES)
    chosen = named(format, dtype or DTYPES, sizes or SHAPES) if format else shipped()
    try:
        with counting("compiled") as progress:
            records = measuring.compile_all(chosen, arch or ARCHES, jobs=jobs, progress=progress)
    except RuntimeError as problem:
        typer.echo(f"actprune: error: {problem}", err=True)
        raise typer.Exit(1) from None
    print_static(records, _console())
    if out is not None:
        found = environment(_words()) | measuring.toolchain()
        measuring.write_records(out, records, found)
    if measuring.spilling(records):
        raise typer.Exit(1)


def _console() -> "Console":
    from rich.console import Console

    console = Console()
    # a file or a pipe has no width of its own: show everything
    return console if console.is_terminal else Console(width=max(console.width, 140))


def _words() -> str:
    return shlex.join(["actprune", *sys.argv[1:]])


def _new_folder() -> Path:
    return Path("results") / datetime.now(timezone.utc).strftime("%Y-%m-%dT%H%M%SZ")


def _go_on(folder: Path) -> str:
    words = shlex.join(["actprune", "compare", "--out", str(folder), "--resume"])
    return f"what was measured is kept: {words}"


def _show(made: "Results", folder: Path, console: "Console") -> None:
    from actprune.compare import PAGE
    from actprune.report.table import print_table

    print_table(made, console)
    console.print(f"the page: {folder / PAGE}", highlight=False, soft_wrap=True)


def _shape(text: str) -> "ShapeConfig":
    from actprune.compare import ShapeConfig

    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"--shape: expected ROWSxFEATURESxOUT_FEATURES, got {text!r}")
    rows, features, out_features = map(int, parts)
    return ShapeConfig(name=text, rows=rows, features=features, out_features=out_features)


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2."""
    app()


if __name__ == "__main__":
    main()
