"""The command line: compare, kernels, train, report, doctor."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actprune.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compare dense, COO, CSR and block-sparse activation pruning: memory, speed, accuracy.",
)
Formats = Annotated[list[str] | None, typer.Option("--format", help="A spec; repeat for several.")]
Out = Annotated[Path, typer.Option("--out", help="The folder for the results; made if missing.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what the folder holds.")]


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _command() -> str:
    return shlex.join(["actprune", *sys.argv[1:]])


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


@app.command()
def compare(
    config: Annotated[
        Path | None, typer.Option("--config", help="A YAML file; without it, a quick comparison.")
    ] = None,
    format: Formats = None,
    out: Out = Path("results/compare"),
    resume: Resume = False,
) -> None:
    """Kernels and training, into a table, OUT/results.json and OUT/index.html."""
    from actprune.compare import PAGE, CompareConfig, run_compare
    from actprune.config import load_yaml
    from actprune.report.table import print_table

    loaded = load_yaml(config, CompareConfig) if config else CompareConfig()
    if format:
        loaded = loaded.model_copy(update={"formats": _specs(format)})
    console = _console()
    made = run_compare(loaded, out, command=_command(), resume=resume, console=console)
    print_table(made, console)
    console.print(f"the page: {out / PAGE}", highlight=False, soft_wrap=True)


@app.command()
def kernels(
    format: Formats = None,
    shape: Annotated[
        list[str] | None, typer.Option("--shape", help="ROWSxFEATURESxOUT_FEATURES; repeatable.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, float64, float16 or bfloat16.")] = "float32",
    samples: Annotated[int, typer.Option(help="Samples of each operation.", min=1)] = 15,
    out: Annotated[
        Path | None, typer.Option("--out", help="A folder for results.json and index.html.")
    ] = None,
) -> None:
    """Time compress, grad_weight and a whole linear layer, checked and interleaved."""
    from actprune.compare import CompareConfig, KernelPart, run_compare
    from actprune.report.table import print_table

    part: dict[str, Any] = {"samples": samples, "dtype": dtype, "heat_map": None}
    if shape:
        part["shapes"] = [_shape(text) for text in shape]
    config = CompareConfig(kernels=KernelPart(**part), training=None)
    if format:
        config = config.model_copy(update={"formats": _specs(format)})
    console = _console()
    if out is not None:
        made = run_compare(config, out, command=_command(), resume=False, console=console)
    else:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            made = run_compare(
                config, Path(folder), command=_command(), resume=False, console=console
            )
    print_table(made, console)


@app.command()
def train(
    out: Out,
    config: Annotated[Path | None, typer.Argument(help="A YAML file of a training run.")] = None,
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
    limit_train: Annotated[int | None, typer.Option()] = None,
    limit_test: Annotated[int | None, typer.Option()] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Glob on layer names.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Glob on layer names.")] = None,
    resume: Resume = False,
) -> None:
    """Train one run; options go over the file's keys. Interrupted and resumed, it ends the same."""
    given = {
        "spec": spec,
        "model": model,
        "data": data,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "weight_decay": weight_decay,
        "warmup_epochs": warmup_epochs,
        "seed": seed,
        "augment": augment,
        "threads": threads,
        "limit_train": limit_train,
        "limit_test": limit_test,
        "checkpoint_every": checkpoint_every,
        "include": include,
        "exclude": exclude,
    }
    from actprune.config import check, load_yaml
    from actprune.training import TrainConfig, run_training

    base = load_yaml(config, TrainConfig).model_dump() if config else {}
    values = {**base, **{key: value for key, value in given.items() if value}}
    values.update({key: value for key, value in given.items() if value == 0 and value is not None})
    console = _console()
    trainer = run_training(check(TrainConfig, values), out, resume=resume, console=console)
    last = trainer.history[-1]
    console.print(f"accuracy {last['accuracy']:.2f} % after {last['epoch']} epochs: {out}")


@app.command()
def report(
    file: Annotated[Path, typer.Argument(help="A results.json.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where index.html goes; beside the file if not given."),
    ] = None,
) -> None:
    """The table and the page of a results.json."""
    from actprune import results
    from actprune.compare import PAGE
    from actprune.report.page import write_page
    from actprune.report.table import print_table

    made = results.read(file)
    folder = out or file.parent
    folder.mkdir(parents=True, exist_ok=True)
    write_page(made, folder / PAGE)
    console = _console()
    print_table(made, console)
    console.print(f"the page: {folder / PAGE}", highlight=False, soft_wrap=True)


@app.command()
def doctor() -> None:
    """What this machine can run."""
    from actprune.environment import environment, version

    found = environment(_command())
    for key in ("actprune", "python", "torch", "platform", "cpu", "isa", "cores", "threads"):
        typer.echo(f"{key:14} {found[key]}")
    typer.echo(f"{'memory':14} {int(str(found['memory_bytes'])) / 2**30:.0f} GiB")
    typer.echo(f"{'gpu':14} {found['gpu'] or 'none that torch can use'}")
    for package in ("triton", "cupy-cuda13x", "ray"):
        typer.echo(f"{package:14} {version(package) or 'not installed (optional)'}")
    typer.echo("cpu backend    dense, coo, csr, bsr in fp32, fp64, fp16, bf16: runs here")
    typer.echo("cuda backend   no kernels in this version; backend=naive runs plain PyTorch there")


def _specs(texts: list[str]) -> list[str]:
    from actprune.formats import parse

    return list(dict.fromkeys(["dense", *(parse(text).spec for text in texts)]))


def _shape(text: str) -> Any:
    from actprune.compare import ShapeConfig

    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) for part in parts):
        raise InputError(f"--shape: expected ROWSxFEATURESxOUT_FEATURES, got {text!r}")
    rows, features, out_features = map(int, parts)
    return ShapeConfig(name=text, rows=rows, features=features, out_features=out_features)


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2."""
    try:
        app()
    except (InputError, OSError) as problem:
        typer.echo(f"actprune: error: {problem}", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        typer.echo("actprune: interrupted; what was measured is kept, --resume goes on", err=True)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
