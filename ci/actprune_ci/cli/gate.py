"""`actprune-ci gate`: one verdict over A/B runs and results."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from actprune_ci import readers
from actprune_ci.cli.options import PolicyFile, Repo, TriageFile
from actprune_ci.judge import calibration_record, from_store, policy
from actprune_ci.judge.gate import gate as judge_all
from actprune_ci.judge.report import Report
from actprune_ci.measure.checkouts import resolve
from actprune_ci.model.runs import AbRun, Run
from actprune_ci.model.serialise import read_ab
from actprune_ci.publish.reports import FORMATS, terminal
from actprune_ci.triage import entries
from actprune_ci.triage.applied import Judgement
from actprune_common.errors import InputError, check_one_of
from actprune_common.files import write_whole


def command(
    policy_file: PolicyFile = None,
    triage_file: TriageFile = None,
    ab: Annotated[
        list[Path] | None, typer.Option(help="An A/B run (ab.json); of equal commits: a sentinel.")
    ] = None,
    results: Annotated[
        list[Path] | None, typer.Option(help="Head's figures, of any known tool, for budgets.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="A store, for --base, --head, history.")
    ] = None,
    base: Annotated[
        str,
        typer.Option(help="The commit compared with, in the store: a hash, or a ref of --repo."),
    ] = "",
    head: Annotated[str, typer.Option(help="The commit judged, likewise.")] = "",
    repo: Repo = Path(),
    calibrated: Annotated[
        Path | None, typer.Option("--calibration", help="This machine's calibration.json.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for the reports.")] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help=f"Of {', '.join(FORMATS)}; all by default.")
    ] = None,
) -> None:
    """Judge A/B runs and results under a policy.

    Exit code 0: good; 1: regression; 3: nothing was measured; 4: inconclusive, as too little of
    what the policy asks was judged, or a change for the worse is not yet confirmed; 5: broken
    machine.
    """
    for name in formats or []:
        check_one_of("--format", name, FORMATS)
    rules = policy.read(policy_file)
    runs = [read_ab(path) for path in ab or []]
    found = [run for path in results or [] for run in readers.read(path)]
    if bool(base or head) and not (base and head and store):
        raise InputError("gate: --base, --head and --store go together")
    if store and base:
        base, head = _hash(repo, base), _hash(repo, head)
        more, of_head = _from_store(store, base, head, rules)
        runs, found = runs + more, found + of_head
    if not (runs or found or base):
        raise InputError("gate: expected --ab, --results, or --store with --base and --head")
    calibration = calibration_record.read(calibrated) if calibrated else None
    settled = Judgement(entries.read(triage_file), repo)
    report = judge_all(rules, runs, found, calibration, settled)
    if store and report.machine:
        keys = [finding.key for finding in report.findings if finding.alert]
        report = replace(report, histories=from_store.histories(store, report.machine, keys))
    _show(report, formats or list(FORMATS), out)
    raise typer.Exit(report.code)


def _hash(repo: Path, name: str) -> str:
    """The full hash of a ref; a hash stays as it is, as the store may know what the clone lacks."""
    return name.lower() if re.fullmatch("[0-9a-fA-F]+", name) else resolve(repo, name)


def _from_store(
    store: Path, base: str, head: str, rules: policy.Policy
) -> tuple[list[AbRun], list[Run]]:
    runs = from_store.runs_of(store, (base, head))
    own = [run for run in runs if run.source != "ab" and run.commit.startswith(head)]
    together = [
        run
        for run in from_store.paired(runs)
        if run.base.startswith(base) and run.head.startswith(head)
    ]
    return [*from_store.compared(base, head, runs, rules), *together], own


def _show(report: Report, formats: list[str], out: Path | None) -> None:
    """The table on the terminal, and the files; without a folder a single format on stdout."""
    if out is None and len(formats) == 1 and formats != ["text"]:
        typer.echo(FORMATS[formats[0]][1](report), nl=False)
        return
    typer.echo(terminal.render(report, colour=sys.stdout.isatty()), nl=False)
    if out:
        for file, render in map(FORMATS.__getitem__, formats):
            write_whole(out / file, render(report))
