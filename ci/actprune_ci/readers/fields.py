"""What the readers share: dates, commits, facts, samples, the meaning of metrics."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter

from actprune_ci.model.dates import YEARS, utc
from actprune_ci.model.metrics import BYTES, Metric
from actprune_ci.model.reading import validated
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_common.errors import InputError
from actprune_common.printable import visible

SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0}
"""One of each unit of time, in seconds."""
_METRICS = TypeAdapter(dict[str, Metric])


def from_milliseconds(timestamp: float) -> str:
    """A JavaScript timestamp as ISO 8601, UTC. Raises ValueError as `utc` does."""
    try:
        return utc(datetime.fromtimestamp(timestamp / 1000, timezone.utc).isoformat())
    except (ValueError, OverflowError, OSError):
        told = f"milliseconds since 1970 that end before {YEARS[-1] + 1}"
        raise ValueError(f"expected {told}, got {timestamp}") from None


def _possible(timestamp: float) -> float:
    from_milliseconds(timestamp)
    return timestamp


Milliseconds = Annotated[float, AfterValidator(_possible)]
"""A JavaScript timestamp."""


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


def commit_of(text: object) -> str:
    """The commit that a tool tells, in lower case; '' for what is no hash (`unversioned`).

    A short hash stays as it is: readers.read refuses it, unless it is told the commit.
    """
    lower = text.lower() if isinstance(text, str) else ""
    return lower if re.fullmatch(r"[0-9a-f]{7,64}", lower) else ""


def of_environment(
    environment: Mapping[str, Any],
    measurements: Iterable[Measurement],
    path: Path,
    metrics: Mapping[str, Metric],
) -> Run:
    """A run of actprune's own, described by its `environment`; InputError where that lacks what a
    run must have.
    """
    facts = dict(environment)
    commit, dirty = commit_of(facts.pop("commit", None)), facts.pop("dirty", False)
    if not isinstance(dirty, bool | None):
        raise InputError(f"{path}: environment.dirty: expected true or false, got {dirty!r:.60}")
    date, machine = facts.pop("date", None), facts.pop("fingerprint", None)
    for name, value in (("date", date), ("fingerprint", machine)):
        if not isinstance(value, str) or not value:
            raise InputError(f"{path}: environment.{name}: expected a text, got {value!r:.60}")
    about = commit, bool(dirty), str(date), str(machine), flat(facts)
    return Run("actprune", *about, tuple(measurements), metrics)


def declared(given: Any, where: str) -> dict[str, Metric]:
    """What a file says of its own metrics, `{NAME: {"direction": "higher", ...}}`, by name.

    Raises InputError, which begins with `where`, for any other shape.
    """
    return validated(
        where,
        partial(_METRICS.validate_json, strict=True),
        json.dumps({} if given is None else given),
    )


def measured(key: Key, samples: Iterable[Any], detail: str = "") -> Measurement:
    """An ok measurement of the samples; failed where there is none, or one is none of its unit."""
    values = list(samples)
    if problem := wrong(key, values):
        return Measurement(key, (), "failed", problem)
    if not values:
        return Measurement(key, (), "failed", detail or "no sample")
    return Measurement(key, tuple(map(float, values)), "ok", detail)


def wrong(key: Key, samples: Iterable[Any]) -> str:
    """What is wrong with the first wrong sample of a figure; '' where they are all sound.

    Sound are finite numbers, and those of bytes and of time that are not negative.
    """
    positive = key.unit in BYTES or key.metric == "time"
    for value in samples:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not isfinite(value):
            return f"expected finite numbers, got {value!r:.60}"
        if positive and value < 0:
            return f"expected {key.unit}, none below 0, got {value!r}"
    return ""


def message(given: object, otherwise: str) -> str:
    """What a tool says of a failure, on one line and not endless."""
    return visible(given)[:200] if isinstance(given, str) and given else otherwise


def unit_of(metric: str) -> str:
    """The unit that a figure's name tells: bytes, ratio, or 1 (a plain number)."""
    if metric.endswith("bytes"):
        return "bytes"
    return "ratio" if "ratio" in metric else "1"
