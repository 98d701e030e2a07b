"""What the gate and calibration read from a store: A/B runs, runs of two commits, histories."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from actprune_ci.judge.policy import Policy
from actprune_ci.model.dates import instant
from actprune_ci.model.metrics import Metric
from actprune_ci.model.runs import (
    ADDED,
    NEITHER,
    NEW,
    NOT_INTERLEAVED,
    RENEWED,
    VANISHED,
    AbRun,
    Key,
    Measurement,
    Pairs,
    Run,
)
from actprune_ci.model.serialise import notes_from_text
from actprune_ci.store import store
from actprune_ci.store.query import sql
from actprune_common.errors import InputError

Place = tuple[str, str, str]
"""Which tool, in which of its environments, on which machine."""


def runs_of(folder: Path, commits: Iterable[str]) -> list[Run]:
    """The store's runs of these commits (each a hash or its beginning), oldest first.

    Raises InputError for a commit without a run, and a beginning of several commits.
    """
    names: set[str] = set()
    for commit in commits:
        rows = sql(
            folder,
            'SELECT DISTINCT run, "commit" FROM measurements'
            ' WHERE starts_with("commit", $commit) AND NOT dirty ORDER BY run',
            {"commit": commit},
        ).rows
        if not rows:
            raise InputError(f"{folder}: no clean run of commit {commit}")
        if len(hashes := sorted({row[1] for row in rows})) > 1:
            raise InputError(f"{folder}: {commit} begins several commits: {', '.join(hashes)}")
        names.update(name for name, _ in rows)
    return _read(folder, sorted(names))


def paired(runs: Sequence[Run]) -> list[AbRun]:
    """The A/B runs whose two sides are both among the runs."""
    sides: dict[str, dict[str, Run]] = {}
    for run in runs:
        if run.source == "ab" and "ab" in run.environment:
            sides.setdefault(run.environment["ab"], {})[run.environment.get("ab_side", "")] = run
    return [_joined(s["base"], s["head"]) for s in sides.values() if {"base", "head"} <= set(s)]


def a_a_runs(folder: Path) -> list[AbRun]:
    """The store's A/B runs of equal commits, oldest first."""
    found = sql(
        folder,
        "SELECT DISTINCT run FROM measurements WHERE source = 'ab' AND environment['ab'] IN ("
        "SELECT environment['ab'] FROM measurements WHERE source = 'ab' GROUP BY 1"
        ' HAVING count(DISTINCT "commit") = 1) ORDER BY run',
    ).rows
    return paired(_read(folder, (name for (name,) in found)))


def _read(folder: Path, names: Iterable[str]) -> list[Run]:
    runs = [store.read(folder / store.RUNS / f"{name}.parquet") for name in names]
    return sorted(runs, key=lambda run: instant(run.date))  # names tell seconds only


def compared(base: str, head: str, runs: Sequence[Run], policy: Policy) -> list[AbRun]:
    """Base and head among runs that were not interleaved: the latest of each figure in each place.

    Only what is exact is compared: times measured one after the other say more of the machine than
    of the commits. Figures of two machines are refused with that reason; those of a benchmark whose
    own version changed are not compared. Where a tool has several environments, a parameter
    `environment` tells their figures apart.
    """
    plain = [run for run in runs if run.source != "ab"]
    of_base = _latest(run for run in plain if run.commit.startswith(base))
    of_head = _latest(run for run in plain if run.commit.startswith(head))
    made = []
    tools = Counter(source for source, _ in {place[:2] for place in of_head})
    for (source, environment, machine), run in of_head.items():
        other = of_base.get((source, environment, machine))
        elsewhere = [r for place, r in of_base.items() if place[:2] == (source, environment)]
        if other is not None:
            joined = _joined(other, run, policy)
        elif elsewhere:
            joined = _refused(elsewhere[-1], run)
        else:
            continue
        made.append(_named(joined, environment) if tools[source] > 1 else joined)
    return made


def _named(joined: AbRun, environment: str) -> AbRun:
    """The same comparison, with the environment among the parameters of its figures."""
    named = ("environment", environment)
    pairs = (replace(p, key=replace(p.key, params=(*p.key.params, named))) for p in joined.pairs)
    return replace(joined, pairs=tuple(pairs))


def histories(folder: Path, machine: str, keys: Iterable[Key]) -> Mapping[Key, tuple[float, ...]]:
    """Medians of the figures' last 60 runs on a machine, oldest first; none where there is none."""
    wanted = {(str(key), key.metric): key for key in keys}
    rows = sql(
        folder,
        "SELECT name, metric, list(value ORDER BY date, run) FROM measurements"
        " WHERE machine = $machine AND status = 'ok' AND list_contains($names, name)"
        " GROUP BY name, metric",
        {"machine": machine, "names": [name for name, _ in wanted]},
    ).rows
    found = {(name, metric): tuple(values[-60:]) for name, metric, values in rows}
    return {key: found[place] for place, key in wanted.items() if place in found}


def _latest(runs: Iterable[Run]) -> dict[Place, Run]:
    """The last run of each place, with what only earlier ones measured."""
    latest: dict[Place, Run] = {}
    for run in sorted(runs, key=lambda run: instant(run.date)):
        place = (run.source, run.environment.get("env_name", ""), run.machine)
        earlier = latest[place].measurements if place in latest else ()
        figures = {m.key.unversioned: m for m in (*earlier, *run.measurements)}
        latest[place] = replace(run, measurements=tuple(figures.values()))
    return latest


def _joined(base: Run, head: Run, policy: Policy | None = None) -> AbRun:
    """Two runs as an A/B run; with a policy they were not interleaved, so exact figures only."""
    sides = [{m.key.unversioned: m for m in run.measurements} for run in (base, head)]
    keys = dict.fromkeys([*sides[0], *sides[1]])
    declared = {**head.metrics, **base.metrics}  # head does not say how head is judged
    pairs = tuple(
        _pairs(key, sides[0].get(key), sides[1].get(key), policy, declared) for key in keys
    )
    of_base, of_head = (
        {name: value for name, value in run.environment.items() if name not in ADDED}
        for run in (base, head)
    )
    notes = notes_from_text(head.environment.get("ab_notes", ""))
    about = base.commit, head.commit, head.date, head.machine
    return AbRun(*about, of_base, of_head, pairs, notes=notes, metrics=declared)


def _pairs(
    key: Key,
    base: Measurement | None,
    head: Measurement | None,
    policy: Policy | None,
    declared: Mapping[str, Metric],
) -> Pairs:
    if base is None:
        return Pairs(key, (), (), "skipped", NEW)
    if policy and head and base.key.version != head.key.version:
        return Pairs(key, (), (), "skipped", RENEWED)
    if policy and head and base.status == head.status == "skipped":
        return Pairs(key, (), (), "skipped", NEITHER)
    if head is None:
        return Pairs(key, (), (), "skipped", VANISHED if base.status == "ok" else "never measured")
    if head.status != "ok":
        return Pairs(key, base.samples, (), head.status, head.detail)
    if base.status != "ok":
        return Pairs(key, (), (), "skipped", NEW)
    if policy is None:
        if len(base.samples) != len(head.samples):
            return Pairs(key, (), (), "skipped", "sides of different lengths")
        return Pairs(key, base.samples, head.samples)
    if not policy.terms(key, declared).exact:
        return Pairs(key, (), (), "skipped", NOT_INTERLEAVED)
    return Pairs(key, (median(base.samples),), (median(head.samples),))


def _refused(base: Run, head: Run) -> AbRun:
    reason = f"machines are never mixed: base was measured on {base.machine}"
    made = _joined(base, head)
    pairs = tuple(
        p if p.detail == NEW else replace(p, base=(), head=(), status="skipped", detail=reason)
        for p in made.pairs
    )
    return replace(made, pairs=pairs)
