"""`actprune-ci publish`: a store as a folder of pages."""

from pathlib import Path
from typing import Annotated, Any

import typer

from actprune_ci.cli.options import (
    AllowMissing,
    Benchmarks,
    Branch,
    CulpritsFile,
    Ordered,
    PolicyFile,
    Store,
    TriageFile,
    Trials,
    echo,
    tell,
    tell_left_out,
)
from actprune_ci.judge import policy
from actprune_ci.publish import culprits
from actprune_ci.publish.commits import Repository
from actprune_ci.publish.dashboard import asv_site, ledger, libraries, site
from actprune_ci.publish.dashboard.board import board
from actprune_ci.publish.folder import refilled
from actprune_ci.triage import entries
from actprune_ci.triage.analysis import analysed
from actprune_common.errors import InputError
from actprune_common.files import contents, json_value, write_whole
from actprune_common.printable import visible


def command(
    store: Store,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    repo: Ordered = Path(),
    branch: Branch = "main",
    benchmarks: Benchmarks = "",
    policy_file: PolicyFile = None,
    triage_file: TriageFile = None,
    allow_missing: AllowMissing = False,
    trials: Trials = 0,
    gate: Annotated[list[Path] | None, typer.Option(help="A gate.json to show.")] = None,
    culprits_file: CulpritsFile = None,
    causes: Annotated[
        Path | None,
        typer.Option(help="What was told before, by cause; OUT/causes.json where it is not said."),
    ] = None,
    require_asv: Annotated[
        bool, typer.Option(help="Without asv's site, write nothing and end with 2.")
    ] = False,
) -> None:
    """Write asv's site, our own pages and a feed, which open from a file share without a network.

    --out is new, empty, or of an earlier time, whose pages are replaced; other files stay.
    --benchmarks chooses what our own pages show. Exit code 0: written, without asv's site where asv
    or its libraries cannot be had, which the pages say; 3: the store has nothing of this branch, or
    the clone lacks commits that a verdict would rest on.
    """
    gates = [_report(path) for path in gate or []]
    rules, decided = policy.read(policy_file), entries.read(triage_file)
    found = culprits.load(culprits_file)
    told = causes or out / "causes.json"
    before = ledger.load(told)
    made = analysed(store, repo, branch, benchmarks, rules, decided, allow_missing, None, trials)
    shown = board(store, made, Repository(repo), gates, found, before)
    tell_left_out(made.history.skipped)
    missing = ""
    with refilled(out) as making:
        try:
            asv_site.write(store, making / "asv", repo, branch, libraries.cache_folder())
        except InputError as problem:
            if require_asv:
                raise
            missing = str(problem)
            tell(f"asv's site is left out: {missing}")
        written = site.write(shown, making, missing)
    if causes:
        write_whole(causes, written)
    first = shown.stories[0].headline if shown.stories else "no regression holds"
    echo(
        visible(
            f"{out / 'index.html'}: {len(made.history.figures)} figures over"
            f" {len(made.history.commits)} commits, {len(made.findings)} changes; {first}"
        )
    )


def _report(path: Path) -> dict[str, Any]:
    """A gate's report, as its JSON. Raises InputError."""
    report = json_value(contents(path), path)
    needed = {"verdict", "code", "base", "head", "machine", "findings"}
    if not (isinstance(report, dict) and needed <= set(report)):
        raise InputError(f"{path}: expected the gate's report, got something else")
    return report
