"""calibration.json (schema 1): what a machine's noise does to the gate, as it was calibrated."""

from math import sqrt
from pathlib import Path
from typing import Literal

from pydantic import Field

from actprune_ci.judge.policy import Strict
from actprune_ci.model import reading
from actprune_ci.model.runs import Key
from actprune_common.files import write_whole


class Rate(Strict):
    """How often something was found, with the exact 95 % interval of the rate."""

    found: int
    trials: int
    low: float
    high: float

    def __str__(self) -> str:
        share = 100 * self.found / self.trials if self.trials else 0.0
        inside = f"{self.found} of {self.trials}, 95 % interval {100 * self.low:.3g} to"
        return f"{share:.3g} % ({inside} {100 * self.high:.3g} %)"


class Size(Strict):
    """What holds for comparisons of so many pairs."""

    pairs: int = Field(gt=0)
    floor: float = Field(ge=0)
    """Noise floor: 99 % of comparisons of equal code show no larger relative change."""
    smallest_found: float | None
    """The slowdown found with 95 % probability, relative; null: none up to a factor of two."""


class BenchmarkNoise(Strict):
    """One benchmark's noise on this machine."""

    benchmark: str
    params: tuple[tuple[str, str], ...]
    metric: str
    unit: str
    version: str = ""
    spread: float
    """Of the log-ratios of its pairs: 1.4826 times the median absolute deviation."""
    sizes: tuple[Size, ...]

    @property
    def key(self) -> Key:
        """Which figure."""
        return Key(self.benchmark, self.params, self.metric, self.unit, self.version)


class Calibration(Strict):
    """A whole calibration: of one machine, for one policy's statistics."""

    format: Literal[1] = Field(alias="schema")
    machine: str
    date: str
    command: str
    confidence: float
    false_discovery_rate: float
    repeats: int
    smallest_effect: float
    false_alarms: Rate
    """Of the gate, over the recorded A/A comparisons, their noise floor left out."""
    simulated: Rate
    """Of the gate as it runs, over comparisons resampled from the machine's noise."""
    asv_rule: Rate
    """Of a factor of 1.1 with Mann-Whitney's p below 0.002, over the recorded comparisons."""
    asv_in_sequence: Rate
    """The same, base from one comparison and head from the next, as without interleaving."""
    coverage: Rate
    """How often the interval held zero, over the recorded comparisons."""
    bootstrap_coverage: Rate
    """The same of the percentile bootstrap's."""
    benchmarks: tuple[BenchmarkNoise, ...]

    def of(self, key: Key) -> BenchmarkNoise | None:
        """A benchmark's noise, where it was calibrated."""
        return next((b for b in self.benchmarks if b.key == key), None)

    def floor(self, key: Key, pairs: int) -> float:
        """The noise floor, relative; 0 where this benchmark was not calibrated.

        Of the largest calibrated size that is not above `pairs`; below all sizes it grows with the
        root of their ratio.
        """
        found = self.of(key)
        if found is None or not found.sizes:
            return 0.0
        sizes = sorted(found.sizes, key=lambda s: s.pairs)
        size = [sizes[0], *(s for s in sizes if s.pairs <= pairs)][-1]
        return size.floor * sqrt(max(size.pairs / pairs, 1))


def read(path: Path) -> Calibration:
    """The calibration in a file. Raises InputError, which names the file and the field."""
    return reading.read(path, Calibration)


def write(path: Path, calibration: Calibration) -> None:
    """Write a calibration, whole or not at all."""
    write_whole(path, calibration.model_dump_json(by_alias=True, indent=1) + "\n")
