"""Calibration: how often the gate would cry wolf on this machine, and what it would find.

From A/A runs (A/B runs of equal commits): the false alarms counted on the recorded comparisons
themselves, and on comparisons resampled from their pairs in blocks, so that neighbours stay
neighbours (Künsch 1989). The noise floors and the smallest slowdown found come from the latter.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from actprune_ci.judge import statistics as st
from actprune_ci.judge.calibration_record import BenchmarkNoise, Calibration, Rate, Size
from actprune_ci.judge.policy import Policy
from actprune_ci.judge.verdict import VERDICTS, codes, repeats
from actprune_ci.model.dates import instant
from actprune_ci.model.runs import AbRun, Key
from actprune_common.errors import InputError

SIZES = (12, 16, 20, 30, 60, 120, 240)
"""Pairs per comparison that calibration looks at."""
FLOOR, FOUND = 0.99, 0.95
"""Quantile of the noise floor; probability with which the smallest slowdown is found."""
LARGEST = 1.0
Interval = Callable[[st.Array, float], tuple[st.Array, st.Array]]
SLOWER, FASTER = float(VERDICTS.index("slower")), float(VERDICTS.index("faster"))


@dataclass(frozen=True)
class Noise:
    """The recorded comparisons of one benchmark with itself, equally many pairs each."""

    base: st.Array
    head: st.Array
    """(comparisons, pairs), in the figure's unit."""

    @property
    def d(self) -> st.Array:
        """Log-ratios, (comparisons, pairs)."""
        return st.log_ratios(self.base, self.head)


def calibrate(
    runs: Sequence[AbRun],
    policy: Policy,
    command: str = "",
    sizes: Sequence[int] = SIZES,
    draws: int = 2000,
) -> Calibration:
    """The calibration of one machine from its A/A runs, for a policy's statistics.

    `draws` comparisons are resampled per benchmark and size. Raises InputError for runs of
    different commits or machines, and where no noisy figure stands in them.
    """
    noises = recorded(runs, policy)
    random = np.random.default_rng(0)
    benchmarks, simulated = [], []
    for key, noise in noises.items():
        made, alarms = _benchmark(key, noise.d, policy, sizes, draws, len(noises), random)
        benchmarks.append(made)
        simulated.append(alarms)
    statistics = policy.statistics

    def over_all(flags: Callable[[Noise], st.Flags]) -> Rate:
        return rate(np.concatenate([flags(noise) for noise in noises.values()]))

    def covered(interval: Interval) -> Rate:
        return over_all(lambda noise: _covers(interval, noise.d, statistics.confidence))

    return Calibration(
        schema=1,
        machine=runs[0].machine,
        date=max((run.date for run in runs), key=instant),
        command=command,
        **statistics.model_dump(exclude={"least_judged"}),
        smallest_effect=policy.defaults.smallest_effect,
        false_alarms=rate(false_alarms(noises, policy)),
        simulated=rate(np.concatenate(simulated)),
        asv_rule=over_all(lambda noise: st.asv_rule(noise.base, noise.head)),
        asv_in_sequence=over_all(_in_sequence),
        coverage=covered(st.median_interval),
        bootstrap_coverage=covered(st.bootstrap_interval),
        benchmarks=tuple(benchmarks),
    )


def recorded(runs: Sequence[AbRun], policy: Policy) -> dict[Key, Noise]:
    """The noisy figures of A/A runs, cut into comparisons of as many pairs as the shortest run has.

    Raises InputError as `calibrate` does.
    """
    for run in runs:
        if run.base != run.head:
            raise InputError(f"calibrate: expected A/A runs, got {run.base} against {run.head}")
    if len(machines := {run.machine for run in runs}) > 1:
        raise InputError(f"calibrate: machines are never mixed, got {', '.join(sorted(machines))}")
    sides: dict[Key, list[st.Array]] = {}
    for run in runs:
        for pairs in run.pairs:
            terms = policy.terms(pairs.key, run.metrics)
            noisy = not terms.exact and terms.smallest_change is None
            both = np.array(pairs.base), np.array(pairs.head)
            if pairs.status == "ok" and noisy and not repeats(*both, terms):
                sides.setdefault(pairs.key, []).append(np.array(both))
    if not sides:
        raise InputError("calibrate: no noisy figure in these A/A runs")
    return {key: _cut(arrays) for key, arrays in sorted(sides.items())}


def _cut(arrays: Sequence[st.Array]) -> Noise:
    size = min(array.shape[1] for array in arrays)
    parts = [
        array[:, : array.shape[1] // size * size].reshape(2, -1, size)  # sides, comparisons, pairs
        for array in arrays
    ]
    base, head = np.concatenate(parts, axis=1)
    return Noise(base, head)


def false_alarms(noises: Mapping[Key, Noise], policy: Policy) -> st.Flags:
    """Which recorded comparisons the gate would raise an alarm over, without noise floors.

    The i-th comparisons of all benchmarks are one A/B run, one family of tests; the next ones are
    its repeat, and the first follow the last.
    """
    statistics = policy.statistics
    p = {key: st.signed_rank(noise.d) for key, noise in noises.items()}
    believed = {key: np.zeros(len(values), bool) for key, values in p.items()}
    for i in range(max(map(len, p.values()))):
        family = [key for key, values in p.items() if i < len(values)]
        flags = st.rejected([float(p[key][i]) for key in family], statistics.false_discovery_rate)
        for key, flag in zip(family, flags, strict=True):
            believed[key][i] = flag
    alarms = []
    for key, noise in noises.items():
        smallest = float(np.log1p(policy.terms(key).smallest_effect))
        found = _codes(noise.d, statistics.confidence, believed[key], smallest, 0.0)
        alarms.append(_recurs(np.stack([np.roll(found, -k) for k in range(statistics.repeats)], 1)))
    return np.concatenate(alarms)


def _codes(
    d: st.Array, confidence: float, believed: st.Flags, smallest: float, floor: float
) -> st.Array:
    low, high = st.median_interval(d, confidence)
    return codes(np.median(d, -1), low, high, believed, smallest, floor)


def _recurs(found: st.Array) -> st.Flags:
    """Where all of (comparisons, repeats) say slower, or all say faster."""
    return np.asarray(np.all(found == SLOWER, 1) | np.all(found == FASTER, 1))


def _benchmark(
    key: Key,
    d: st.Array,
    policy: Policy,
    sizes: Sequence[int],
    draws: int,
    family: int,
    random: np.random.Generator,
) -> tuple[BenchmarkNoise, st.Flags]:
    """One benchmark's noise, and the false alarms over its resampled comparisons."""
    made, alarms = [], []
    for size in sizes:
        drawn = resampled(d, (policy.statistics.repeats * draws, size), random)
        floor = float(np.quantile(np.abs(np.median(drawn, -1)), FLOOR))
        fresh = resampled(d, (policy.statistics.repeats * draws, size), random)
        trial = Trial(fresh, policy, float(policy.terms(key).smallest_effect), floor, family)
        alarms.append(_recurs(trial.codes(0.0, 1)))
        relative, found = float(np.expm1(floor)), smallest_found(trial)
        made.append(Size(pairs=size, floor=relative, smallest_found=found))
    spread = float(st.spread(d.ravel()))
    return BenchmarkNoise(**asdict(key), spread=spread, sizes=tuple(made)), np.concatenate(alarms)


def resampled(d: st.Array, shape: tuple[int, int], random: np.random.Generator) -> st.Array:
    """(comparisons, pairs) of log-ratios, drawn from d in blocks of neighbours (the moving blocks
    bootstrap; blocks of the cube root of the size).
    """
    comparisons, pairs = shape
    flat = d.ravel()
    length = max(1, round(pairs ** (1 / 3)))
    starts = random.integers(0, len(flat), (comparisons, -(-pairs // length)))
    places = starts[:, :, None] + np.arange(length)  # comparisons, blocks, length
    return np.asarray(flat[places.reshape(comparisons, -1)[:, :pairs] % len(flat)])


@dataclass(frozen=True)
class Trial:
    """Comparisons of equal code, (repeats x comparisons, pairs), and how they are judged."""

    d: st.Array
    policy: Policy
    smallest_effect: float
    floor: float
    """As a log-ratio."""
    family: int
    """How many benchmarks an A/B run has."""

    def codes(self, slowdown: float, family: int) -> st.Array:
        """(comparisons, repeats) of verdict codes with a relative slowdown planted.

        Believed is what would be, were it the only change in the family.
        """
        d = self.d + np.log1p(slowdown)
        statistics = self.policy.statistics
        believed = st.signed_rank(d) <= statistics.false_discovery_rate / family
        smallest = float(np.log1p(self.smallest_effect))
        found = _codes(d, statistics.confidence, believed, smallest, self.floor)
        return np.asarray(found.reshape(-1, statistics.repeats))

    def power(self, slowdown: float) -> float:
        """The share of comparisons that find the slowdown in every repeat."""
        return float(np.mean(np.all(self.codes(slowdown, self.family) == SLOWER, 1)))


def smallest_found(trial: Trial) -> float | None:
    """The smallest relative slowdown found with 95 % probability; None above a factor of two."""
    grid = np.geomspace(trial.smallest_effect, LARGEST, 129).tolist()
    if trial.power(grid[-1]) < FOUND:
        return None
    last = len(grid) - 1
    at = bisect_left(grid, True, hi=last, key=lambda slowdown: trial.power(slowdown) >= FOUND)
    return float(grid[at])


def _in_sequence(noise: Noise) -> st.Flags:
    if len(noise.base) < 2:
        return np.zeros(0, bool)
    return st.asv_rule(noise.base[:-1], noise.head[1:])


def _covers(interval: Interval, d: st.Array, confidence: float) -> st.Flags:
    low, high = interval(d, confidence)
    return np.asarray((low <= 0) & (high >= 0))


def rate(flags: st.Flags) -> Rate:
    """How many of the flags are set, with the interval of their rate."""
    found, trials = int(flags.sum()), len(flags)
    low, high = st.proportion_interval(found, trials)
    return Rate(found=found, trials=trials, low=low, high=high)
