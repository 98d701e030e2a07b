"""What the harness keeps of any tool's output: runs of measurements.

With the pairs of an A/B run (actprune_ci.model.pairs) these shapes are all that the store, the
gate, the history and the dashboards know; readers turn asv's, pytest-benchmark's and actprune's
files into them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Status = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, order=True)
class Key:
    """Which figure: `suite.Kernels.time_grad_weight` of spec and layer, in seconds."""

    benchmark: str
    params: tuple[tuple[str, str], ...] = ()
    """(name, value) in the benchmark's own order."""
    metric: str = "time"
    unit: str = "s"

    def of_spec(self, spec: str) -> "Key":
        """The same figure of another spec."""
        return replace(self, params=tuple({**dict(self.params), "spec": spec}.items()))

    def __str__(self) -> str:
        inside = ", ".join(f"{name}={value}" for name, value in self.params)
        return f"{self.benchmark}({inside})" if inside else self.benchmark


@dataclass(frozen=True)
class Measurement:
    """One figure of one run: raw samples, or a single value for what does not vary."""

    key: Key
    samples: tuple[float, ...] = ()
    """In the key's unit, in the order measured; empty unless the status is ok."""
    status: Status = "ok"
    detail: str = ""
    """Why it failed or was skipped."""


@dataclass(frozen=True)
class Run:
    """One run of one tool on one machine at one commit."""

    source: Literal["asv", "pytest-benchmark", "actprune", "ab"]
    commit: str
    """Full hash; empty where the source does not know it."""
    dirty: bool
    date: str
    """ISO 8601, UTC."""
    machine: str
    """Fingerprint: runs of two machines are never compared in absolute figures."""
    environment: Mapping[str, str]
    measurements: tuple[Measurement, ...]
