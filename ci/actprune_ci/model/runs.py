"""What the harness keeps of any tool's output: runs of measurements, and A/B runs of pairs.

These shapes are all that the store, the gate, the history and the dashboards know; readers turn
asv's, pytest-benchmark's and actprune's files into them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import dataclasses, model_validator

from actprune_ci.model.metrics import Metric

Status = Literal["ok", "failed", "skipped"]
Source = Literal[
    "asv",
    "pytest-benchmark",
    "actprune",
    "ab",
    "github-action-benchmark",
    "criterion",
    "google-benchmark",
    "nvbench",
    "hyperfine",
]
"""The tool that measured."""


@dataclass(frozen=True, order=True)
class Key:
    """Which figure: `suite.Kernels.time_grad_weight` of spec and layer, in seconds."""

    benchmark: str
    params: tuple[tuple[str, str], ...] = ()
    """(name, value) in the benchmark's own order."""
    metric: str = "time"
    unit: str = "s"
    version: str = ""
    """Of the benchmark's own code, where its tool gives one: another version is another figure."""

    @property
    def unversioned(self) -> "Key":
        """The same figure, whatever its benchmark's version."""
        return replace(self, version="")

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

    source: Source
    commit: str
    """Full hash; empty where the source does not know it."""
    dirty: bool
    date: str
    """ISO 8601, UTC."""
    machine: str
    """Fingerprint: runs of two machines are never compared in absolute figures."""
    environment: Mapping[str, str]
    measurements: tuple[Measurement, ...]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """What the file declares of its own metrics, by name."""


ADDED = ("ab", "ab_side", "ab_notes")
"""Facts that stand beside a side's environment: of the A/B run, and nothing about the machine."""
OF_THE_RUN = frozenset({"command", "commit_date", *ADDED})
"""Facts in an environment that are of one run, and nothing about where it was measured."""

Code = Literal[
    "clock-jumped",
    "device-lost",
    "slow-governor",
    "processor-throttled",
    "gpu-throttled",
    "gpu-power-capped",
    "samples-discarded",
    "other-work",
    "not-imported",
    "budget-used-up",
    "interrupted",
    "no-calibration",
    "other-calibration",
    "same-run",
    "unknown-metric",
    "other",
]
BEFORE_CODES: dict[str, Code] = {"clock jumped": "clock-jumped", "device lost": "device-lost"}
"""How the notes began that broke a machine while notes were texts alone."""


@dataclasses.dataclass(frozen=True)
class Note:
    """One note of an A/B run or of a gate's report."""

    code: Code
    """What policies match."""
    text: str
    """What people read."""

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, given: Any) -> Any:
        """A note in a file from before codes is its text: its code is derived here, once."""
        if not isinstance(given, str):
            return given
        found = (code for begins, code in BEFORE_CODES.items() if given.startswith(begins))
        return {"code": next(found, "other"), "text": given}


NEW, VANISHED = "new", "vanished"
"""Codes in a pair's `detail`: head alone has the figure, base alone had it."""
RENEWED = "the benchmark's own version changed: not compared"
NEITHER = "measured on neither side"
NOT_INTERLEAVED = "not interleaved: actprune-ci ab compares it"
"""The same, of figures whose sides were measured one after the other."""


@dataclass(frozen=True)
class Pairs:
    """One figure measured alternately for two commits: base[i] and head[i] belong together."""

    key: Key
    base: tuple[float, ...] = ()
    head: tuple[float, ...] = ()
    status: Status = "ok"
    """`skipped` where only one side has the benchmark (detail: NEW or VANISHED) or neither."""
    detail: str = ""
    """One of these codes, or for a reader why it failed or was skipped."""


@dataclass(frozen=True)
class AbRun:
    """The outcome of `actprune-ci ab`: all of one machine, both sides interleaved."""

    base: str
    head: str
    date: str
    machine: str
    environment_base: Mapping[str, str]
    environment_head: Mapping[str, str]
    pairs: tuple[Pairs, ...]
    seconds: float = 0.0
    """Wall clock of the whole run."""
    notes: tuple[Note, ...] = ()
    """What a reader must know: budget used up, throttling seen, a clock that jumped."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """What the suite declares of its own metrics, by name."""
