"""The harness's own JSON: an A/B run (ab.json) is two runs, base and head, and a run is itself."""

import json
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from actprune_ci.model.runs import NEW, VANISHED, AbRun, Measurement, Run
from actprune_ci.model.serialise import from_json, notes_to_text, to_json
from actprune_ci.readers.fields import wrong
from actprune_common.errors import InputError


def runs(document: Mapping[str, Any], path: Path) -> tuple[Run, ...]:
    """One run, or base and head of an A/B run: sample i of one belongs to sample i of the other."""
    found = from_json(json.dumps(document), str(path))
    runs = sides(found) if isinstance(found, AbRun) else (found,)
    for measurement in (m for run in runs for m in run.measurements):
        if problem := wrong(measurement.key, measurement.samples):
            raise InputError(f"{path}: {measurement.key}, {measurement.key.metric}: {problem}")
    return runs


def sides(ab: AbRun) -> tuple[Run, Run]:
    """Base and head as runs; in their environments `ab` is the same id, `ab_side` tells them apart.

    A benchmark that one side does not have is not in that side's run.
    """
    shared = {
        "ab": sha256(to_json(ab).encode()).hexdigest()[:16],
        "ab_notes": notes_to_text(ab.notes),
    }
    about = ab.date, ab.machine
    base = Run("ab", ab.base, False, *about, {**ab.environment_base, **shared}, (), ab.metrics)
    head = replace(base, commit=ab.head, environment={**ab.environment_head, **shared})
    return _side(base, ab, "base"), _side(head, ab, "head")


def _side(run: Run, ab: AbRun, side: str) -> Run:
    missing = NEW if side == "base" else VANISHED
    measurements = []
    for pair in ab.pairs:
        if pair.status == "skipped" and pair.detail == missing:
            continue
        samples = pair.base if side == "base" else pair.head
        status = "ok" if samples else pair.status
        measurements.append(Measurement(pair.key, samples, status, "" if samples else pair.detail))
    environment = {**run.environment, "ab_side": side}
    return replace(run, environment=environment, measurements=tuple(measurements))
