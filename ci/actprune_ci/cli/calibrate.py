"""`actprune-ci calibrate`: how often the gate cries wolf on a machine, and what it finds."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from actprune_ci.cli.options import PolicyFile, echo
from actprune_ci.judge import calibration_record, from_store, policy
from actprune_ci.judge.calibrate import calibrate
from actprune_ci.judge.identity import distinct
from actprune_ci.model.serialise import read_ab
from actprune_common.errors import InputError
from actprune_common.printable import visible


def command(
    ab: Annotated[
        list[Path] | None, typer.Option(help="An A/A run: an ab.json of equal commits.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="A store: its A/A runs.")] = None,
    policy_file: PolicyFile = None,
    machine: Annotated[str, typer.Option(help="Of several machines in the store, this one.")] = "",
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("calibration.json"),
    draws: Annotated[int, typer.Option(min=100, help="Simulated comparisons of each size.")] = 2000,
) -> None:
    """Measure false alarms and the smallest slowdown found, from A/A runs of one machine."""
    rules = policy.read(policy_file)
    runs = [read_ab(path) for path in ab or []]
    runs += from_store.a_a_runs(store) if store else []
    runs = distinct([run for run in runs if not machine or run.machine == machine])
    if not runs:
        raise InputError("calibrate: expected A/A runs (--ab, --store), got none")
    made = calibrate(runs, rules, shlex.join(["actprune-ci", *sys.argv[1:]]), draws=draws)
    calibration_record.write(out, made)
    echo(summary(made))


def summary(made: calibration_record.Calibration) -> str:
    """The calibration in a few lines."""
    lines = [
        f"machine      {made.machine}",
        f"gate, recorded            {made.false_alarms}",
        f"gate, simulated           {made.simulated}",
        f"asv's rule, same pairs    {made.asv_rule}",
        f"asv's rule, in sequence   {made.asv_in_sequence}",
        f"interval holds zero       {made.coverage}",
        f"bootstrap's holds zero    {made.bootstrap_coverage}",
    ]
    for benchmark in made.benchmarks:
        sizes = ", ".join(
            f"{s.pairs} pairs: {'-' if s.smallest_found is None else f'{s.smallest_found:.1%}'}"
            for s in benchmark.sizes
        )
        lines.append(f"{benchmark.key}: noise {benchmark.spread:.1%} a pair; finds {sizes}")
    return "\n".join(map(visible, lines))
