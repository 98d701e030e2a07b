"""`actprune train`: an option for each key of TrainConfig."""

import os
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from actprune_bench.cli.common import Out, Resume, folder_of, terminal
from actprune_bench.training import TrainConfig, run_training
from actprune_bench.training.distributed import world_of
from actprune_common.errors import InputError
from actprune_common.strict_yaml import check, load_yaml

_OPTION_TYPES: dict[type, Any] = {type(None): int, tuple: list[str]}
"""Of keys whose default is of another type than their values."""


def command(
    config: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A YAML file; options go over its keys.")
    ] = None,
    out: Out = None,
    resume: Resume = False,
    **keys: Any,
) -> None:
    """Train one run. Interrupted and resumed, it ends the same as if it had not been.

    Under torchrun the ranks train it together: docs/distributed.md.
    """
    if out is None and world_of(os.environ).size > 1:
        raise InputError("--out: expected with several ranks, so that a restart finds the run")
    folder = folder_of(out, resume=resume)
    base = load_yaml(config, TrainConfig).model_dump() if config else {}
    options = {key: value for key, value in keys.items() if value not in (None, [])}
    chosen = check(TrainConfig, {**base, **options})
    run_training(chosen, folder, resume=resume, console=terminal())


def _declare_keys() -> None:
    """Give `command` a parameter for each key, for typer to make options of; none is required."""
    *own, _ = signature(command).parameters.values()
    for key, field in TrainConfig.model_fields.items():
        default_type = type(field.default)
        kind: Any = _OPTION_TYPES.get(default_type, default_type)
        option = Annotated[kind | None, typer.Option(help=field.description)]
        own.append(Parameter(key, Parameter.KEYWORD_ONLY, default=None, annotation=option))
        command.__annotations__[key] = option
    command.__signature__ = signature(command).replace(parameters=own)  # type: ignore[attr-defined]


_declare_keys()
