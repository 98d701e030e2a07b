"""`actprune-ci culprits`: the commits of what is newly worse, by bisection within a budget."""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from actprune_ci.cli.options import Ordered, Suite, echo, tell
from actprune_ci.model.documents import GateJson, HistoryJson
from actprune_ci.model.reading import json_object, read
from actprune_ci.nightly import step
from actprune_ci.publish.causes import Cause, Told, causes
from actprune_ci.publish.commits import Repository
from actprune_ci.publish.culprits import Culprit, Culprits, kept, load, narrowed, to_ask
from actprune_ci.publish.reports.formatting import pattern
from actprune_common.errors import InputError, last_line
from actprune_common.files import write_whole
from actprune_common.printable import visible
from actprune_common.processes import MARK

LEAST = 60.0
"""Seconds: with less left, no bisection begins."""


def command(
    out: Annotated[Path, typer.Option(help="culprits.json, which goes on where it is there.")],
    machine: Annotated[str, typer.Option(help="This machine: of its figures alone.")],
    gate: Annotated[Path | None, typer.Option(help="gate.json.")] = None,
    history: Annotated[Path | None, typer.Option(help="history.json.")] = None,
    repo: Ordered = Path(),
    suite: Suite = "benchmarks",
    budget: Annotated[float, typer.Option(min=0, help="Seconds of all bisections.")] = 3600,
) -> None:
    """Bisect each new cause of regressions that is one of several commits, the newest first.

    What was asked before is not asked again; what the budget leaves waits for the next night.
    Exit code 0: whatever was found.
    """
    if gate is None and history is None:
        raise InputError("culprits: expected --gate, --history or both, got neither")
    of_gate = read(gate, GateJson) if gate else None
    of_history = read(history, HistoryJson) if history else None
    order, known = Repository(repo).order(of_gate, of_history), load(out)
    found = narrowed(causes([of_gate] if of_gate else [], of_history, order), known, order)
    made = Culprits(bisections=kept(found, known, order))
    waiting, end = to_ask(found, known, order, machine), time.monotonic() + budget
    while waiting and (left := end - time.monotonic()) >= LEAST:
        cause, figure = waiting.pop(0)
        outcome = bisected(cause, figure, repo, suite, left)
        if outcome is None:  # cut off by the budget: to be asked again
            waiting.insert(0, (cause, figure))
            break
        made.bisections.append(outcome)
        write_whole(out, made.text)
        said = ", ".join(each[:10] for each in outcome.suspects) or "no telling"
        echo(visible(f"{outcome.name}: {said}: {outcome.detail}"))
    write_whole(out, made.text)
    if waiting:
        tell(f"{len(waiting)} causes wait for another night (--budget)")


def bisected(cause: Cause, figure: Told, repo: Path, suite: str, left: float) -> Culprit | None:
    """What a bisection of a cause by one of its figures says; None where its time was over."""
    about = {"name": figure.entry.name, "machine": figure.machine}
    about |= {"good": cause.good, "bad": cause.bad}
    mark = "/".join(filter(None, (os.environ.get(MARK), uuid4().hex)))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "bisection.json"
        words = [sys.executable, "-m", "actprune_ci", "bisect", cause.good, cause.bad]
        words += ["--benchmark", f"{pattern([figure.entry.name])}$", "--repo", str(repo.resolve())]
        words += ["--suite", suite, "--out", str(place)]
        log = Path(folder) / "log"
        ended = step.run(words, log, left, Path.cwd(), {**os.environ, MARK: mark})
        if ended.reason:
            return None
        if not place.exists():
            return Culprit(**about, detail=last_line(ended.tail, f"exit code {ended.code}"))
        said = json_object(place)
    detail = str(said.get("confirmed") or f"one of {len(said['suspects'])} commits")
    return Culprit(**about, suspects=said["suspects"], detail=detail)
