"""A night: how it begins or goes on, and the loop over its steps.

Each step runs once, and what goes wrong with one is its own.
"""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

from actprune_ci.judge.report import BROKEN, CODES, NO_DATA, REGRESSION
from actprune_ci.measure import machine
from actprune_ci.measure.checkouts import resolve
from actprune_ci.model.reading import json_object
from actprune_ci.nightly import step
from actprune_ci.nightly.config import MissingError, Night, NightStep, expand
from actprune_ci.nightly.state import ENDED, FILE, Done, NightState, load, save
from actprune_ci.publish.reports.formatting import pattern
from actprune_ci.store.query import sql
from actprune_common.errors import InputError
from actprune_common.git import git, uncommitted
from actprune_common.processes import MARK, end_all

GATE = "gate/gate.json"
"""In the night's folder: where the gate of a night writes what it wants repeated."""
TOKENS = ("GH_TOKEN", "GITHUB_TOKEN")


@dataclass(frozen=True)
class NightRun:
    """A night that is running."""

    night: Night
    folder: Path
    repo: Path
    values: dict[str, str]
    """Of placeholders; `base` only where there is an earlier commit."""
    state: NightState
    environment: Mapping[str, str]


def begin(night: Night, folder: Path, repo: Path, base: str = "", resume: bool = False) -> NightRun:
    """A night in `folder`, at the commit checked out; with `resume` the one that is there goes on.

    Without `base` it is compared with the newest earlier commit that the store has of this machine.
    Raises InputError for uncommitted changes, a folder that has a night already, and one that has a
    night of another commit or machine.
    """
    repo, folder = repo.resolve(), folder.resolve()
    commit, name = resolve(repo, "HEAD"), machine.facts()["fingerprint"]
    if uncommitted(repo):
        raise InputError(f"{repo}: has uncommitted changes, and a night measures a commit")
    store = repo / night.store
    state = load(folder)
    if state is not None and not resume:
        raise InputError(f"{folder / FILE}: is there already; --resume goes on with it")
    if state is None:
        base = resolve(repo, base) if base else last_night(store, repo, commit, name)
        began = datetime.now(timezone.utc).isoformat(timespec="seconds")
        gpus = max(night.gpus, len(machine.gpus()))
        token = "/".join(filter(None, (os.environ.get(MARK), uuid4().hex)))
        state = NightState(commit, base, name, token, began, gpus)
    for what, was, now in (("commit", state.commit, commit), ("machine", state.machine, name)):
        if was != now:
            raise InputError(
                f"{folder / FILE}: a night of {what} {was[:12]}, and this is {now[:12]}"
            )
    values = {
        "out": str(folder),
        "store": str(store),
        "repo": str(repo),
        "commit": commit,
        "short": commit[:8],
        "branch": git(repo, "rev-parse", "--abbrev-ref", "HEAD"),
        "machine": name,
        "python": sys.executable,
    } | ({"base": state.base} if state.base else {})
    # this interpreter's programs come first, and output is not held back
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", MARK: state.token}
    return NightRun(night, folder, repo, values, state, environment)


def last_night(store: Path, repo: Path, commit: str, name: str) -> str:
    """The newest commit before `commit` that the store has of a machine; empty without one."""
    if not any(store.glob("runs/*.parquet")):
        return ""
    question = 'SELECT DISTINCT "commit" FROM measurements WHERE NOT dirty AND machine = $machine'
    recorded = {row[0] for row in sql(store, question, {"machine": name}).rows}
    earlier = git(repo, "rev-list", "--topo-order", commit).split()[1:]
    return next((each for each in earlier if each in recorded), "")


def run(made: NightRun, tell: Callable[[str], None]) -> None:
    """Run what is not done yet; the exit code is then in the state.

    Raises InputError where the state cannot be written, and for nothing else. Ctrl-C ends the step
    that runs and goes on its way; the same night then starts that step anew.
    """
    state = made.state
    if any(done.status == "running" for done in state.steps.values()):
        end_all(None, state.token)  # what an earlier process of this night left behind
    for each in made.night.steps:
        done = state.steps.get(each.name)
        if done is not None and done.status in ENDED:
            continue
        done = _one(made, each, tell)
        _keep(made, each.name, done)
        tell(told(each, done))
        if done.status == "lost":
            break
    state.code, state.verdict = outcome(made.night, state)
    save(made.folder, state)


def outcome(night: Night, state: NightState) -> tuple[int, str]:
    """The night's exit code and verdict: the gate's, unless the machine or a step failed."""
    ran = steps_of(night, state)
    for each, done in ran:
        if done.status == "lost":
            return BROKEN, f"broken machine: {done.reason}, at {each.name}"
    codes = [done.code for each, done in ran if each.verdict and done.status == "ok"]
    failed = [e.name for e, done in ran if done.status == "failed" and e.failure == "error"]
    also = f"; failed: {', '.join(failed)}" if failed else ""
    if not codes or codes[-1] is None:
        return NO_DATA, f"no data: no verdict{also}"
    if codes[-1] == 0 and failed:
        return REGRESSION, f"failed: {', '.join(failed)}; the gate is good"
    return codes[-1], CODES.get(codes[-1], f"code {codes[-1]}") + also


def steps_of(night: Night, state: NightState) -> list[tuple[NightStep, Done]]:
    """The steps that something is known of, in order."""
    return [(s, state.steps[s.name]) for s in night.steps if s.name in state.steps]


def told(each: NightStep, done: Done) -> str:
    """A step's outcome in one line."""
    verdict = f" ({CODES.get(done.code or 0, '')})" if each.verdict and done.status == "ok" else ""
    parts = [f"{done.status}{verdict}", f"{done.seconds:.0f} s" if done.attempts else ""]
    parts += [f"{done.attempts} attempts" if done.attempts > 1 else "", done.reason, *done.notes]
    return f"{each.name}: {', '.join(part for part in parts if part)}"


def _one(made: NightRun, each: NightStep, tell: Callable[[str], None]) -> Done:
    """Run one step, as often as it may be tried, or say why it is not run."""
    before = machine.state()
    if gone := machine.missing_gpus(made.state.gpus, before):
        return Done("lost", reason=gone, before=before.document)
    try:
        if reason := _not_now(made, each, before):
            return Done("skipped", reason=reason)
        values, why = _values(made)
        command = expand(each.run, values, why)
        for path in expand(each.makes, values, why):
            Path(path).unlink(missing_ok=True)
    except MissingError as problem:
        return Done("skipped", reason=str(problem))
    except OSError as problem:
        return Done("failed", reason=f"{problem.filename}: {problem.strerror}")
    log = made.folder / "logs" / f"{each.name}.log"
    done = Done("running", command, log=f"logs/{log.name}", before=before.document)
    _keep(made, each.name, done)
    tell(f"{each.name} ...")
    for attempt in range(each.retries + 1):
        ended = step.run(command, log, each.timeout, made.repo, made.environment)
        _note(done, each, ended, attempt + 1)
        after = machine.state()
        done.after = after.document
        said = (note.text for note in machine.notes(before, after))
        done.notes = list(dict.fromkeys((*done.notes, *ended.notes, *said)))
        if gone := machine.missing_gpus(made.state.gpus, after):
            done.status, done.reason = "lost", gone
        if done.status != "failed":
            break
    return done


def _note(done: Done, each: NightStep, ended: step.Ended, attempt: int) -> None:
    """Write down how an attempt ended."""
    good = ended.code in (CODES if each.verdict else (0,)) and not ended.reason
    done.status = "ok" if good else "failed"
    done.code, done.attempts = ended.code, attempt
    done.seconds = round(done.seconds + ended.seconds, 3)
    done.reason = "" if good else ended.reason or f"exit code {ended.code}"
    done.tail = "" if good else ended.tail


def _not_now(made: NightRun, each: NightStep, now: machine.MachineState) -> str:
    """Why a step is not run; nothing where it is."""
    if each.when == "cuda" and not now.gpus:
        return "no CUDA device"
    if each.when == "github" and not (
        shutil.which("gh", path=made.environment.get("PATH"))
        and any(made.environment.get(name) for name in TOKENS)
    ):
        return "no gh with a token (GH_TOKEN)"
    missing = [name for name in each.needs if made.state.steps[name].status != "ok"]
    return f"needs {', '.join(missing)}" if missing else ""


def _values(made: NightRun) -> tuple[dict[str, str], dict[str, str]]:
    """What placeholders stand for now, and why some stand for nothing."""
    why = {"base": "no earlier commit in the store", "repeat": "nothing to repeat"}
    values = dict(made.values)
    try:
        if names := json_object(made.folder / GATE)["repeat"]["benchmarks"]:
            values["repeat"] = pattern(names)
    except (InputError, KeyError, TypeError):
        why["repeat"] = f"no {GATE} to repeat anything of"
    return values, why


def _keep(made: NightRun, name: str, done: Done) -> None:
    made.state.steps[name] = done
    save(made.folder, made.state)
