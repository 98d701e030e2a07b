"""How a night begins, or goes on: its commit, the one it is compared with, its machine."""

import os
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

from actprune_ci.measure import machine
from actprune_ci.measure.checkouts import resolve
from actprune_ci.nightly.config import Night
from actprune_ci.nightly.night import NightRun
from actprune_ci.nightly.state import FILE, NightState, load
from actprune_ci.store.query import sql
from actprune_common.errors import InputError
from actprune_common.git import git, uncommitted
from actprune_common.processes import MARK


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
    return NightRun(night, folder, repo, values, state, environment())


def last_night(store: Path, repo: Path, commit: str, name: str) -> str:
    """The newest commit before `commit` that the store has of a machine; empty without one."""
    if not any(store.glob("runs/*.parquet")):
        return ""
    question = 'SELECT DISTINCT "commit" FROM measurements WHERE NOT dirty AND machine = $machine'
    recorded = {row[0] for row in sql(store, question, {"machine": name}).rows}
    earlier = git(repo, "rev-list", "--topo-order", commit).split()[1:]
    return next((each for each in earlier if each in recorded), "")


def environment() -> Mapping[str, str]:
    """Of every step: this interpreter's programs come first, and output is not held back."""
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
