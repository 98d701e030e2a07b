"""What the readers share: dates, facts, samples."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from math import isfinite
from pathlib import Path
from typing import Any

from actprune_ci.model.runs import Key, Measurement, Run
from actprune_common.errors import InputError


def from_milliseconds(timestamp: float) -> str:
    """A JavaScript timestamp as ISO 8601, UTC."""
    return datetime.fromtimestamp(timestamp / 1000, timezone.utc).isoformat()


def flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The facts that are text, numbers or flags, as text, names prefixed; null and '' left out."""
    return {
        f"{prefix}{name}": str(value)
        for name, value in facts.items()
        if isinstance(value, (str, int, float)) and value != ""
    }


def full_hash(text: object) -> str:
    """The commit if it is a full hash of git's, else '' (`unversioned` and the like)."""
    known = isinstance(text, str) and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text)
    return str(text) if known else ""


def of_environment(
    environment: Mapping[str, Any], measurements: Iterable[Measurement], path: Path
) -> Run:
    """A run of actprune's own, described by its `environment`; InputError where that lacks what a
    run must have.
    """
    facts = dict(environment)
    commit, dirty = full_hash(facts.pop("commit", None)), bool(facts.pop("dirty", False))
    date, machine = facts.pop("date", None), facts.pop("fingerprint", None)
    for name, value in (("date", date), ("fingerprint", machine)):
        if not isinstance(value, str) or not value:
            raise InputError(f"{path}: environment.{name}: expected a text, got {value!r}")
    return Run("actprune", commit, dirty, str(date), str(machine), flat(facts), tuple(measurements))


def measured(key: Key, samples: Iterable[Any], detail: str = "") -> Measurement:
    """An ok measurement of the samples; failed where there is none, or one is no finite number."""
    values = list(samples)
    if odd := [v for v in values if not isinstance(v, (int, float)) or not isfinite(v)]:
        return Measurement(key, (), "failed", f"expected finite numbers, got {odd[0]!r:.60}")
    if not values:
        return Measurement(key, (), "failed", detail or "no sample")
    return Measurement(key, tuple(map(float, values)), "ok", detail)


def unit_of(metric: str) -> str:
    """The unit that a figure's name tells: bytes, ratio, or 1 (a plain number)."""
    if metric.endswith("bytes"):
        return "bytes"
    return "ratio" if "ratio" in metric else "1"
