"""What the gate has to say: a verdict, which is an exit code, and its reasons."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from actprune_ci.judge.calibration_record import Calibration
from actprune_ci.judge.findings import Finding
from actprune_ci.model.notes import Note
from actprune_ci.model.runs import Key

GOOD, REGRESSION, NO_DATA, INCONCLUSIVE, BROKEN = 0, 1, 3, 4, 5
CODES = {
    GOOD: "good",
    REGRESSION: "regression",
    NO_DATA: "no data",
    INCONCLUSIVE: "inconclusive, which the policy forbids",
    BROKEN: "broken machine",
}


@dataclass(frozen=True)
class Report:
    """All that the gate has to say."""

    code: int
    base: str
    head: str
    machine: str
    date: str
    findings: tuple[Finding, ...]
    broken: tuple[str, ...] = ()
    """Why the machine is not believed."""
    notes: tuple[Note, ...] = ()
    environment: tuple[tuple[str, str, str], ...] = ()
    """(fact, of base, of head) where they differ."""
    calibration: Calibration | None = None
    histories: Mapping[Key, tuple[float, ...]] = field(default_factory=dict)
    """Medians of earlier runs on this machine, oldest first."""

    @property
    def repeat(self) -> tuple[str, ...]:
        """Benchmarks whose change must be seen in one more A/B run before it counts."""
        return tuple(dict.fromkeys(f.key.benchmark for f in self.findings if f.unconfirmed))
