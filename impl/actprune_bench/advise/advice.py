"""Which setting fits a budget of memory, by predicted peaks and by recorded training runs."""

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from actprune.budget.allocate import allocate
from actprune_bench.advise.factory import OPTIMIZER, Given
from actprune_bench.data import DataShape
from actprune_bench.measure.peak import predicted_peak
from actprune_bench.training.config import TrainConfig
from actprune_common.errors import InputError
from actprune_common.results import Results
from actprune_common.strict_yaml import check

RECORDED = Path(__file__).with_name("recorded.json")
"""Made by benchmarks/scripts/recorded.py from the files under docs/results/."""
TOLERATED = 0.3
"""Points of accuracy below dense that count as none."""
CHANCE = 1.0
"""Points that a single seed may be off by chance: the standard error that it cannot show."""


@dataclass(frozen=True)
class Setting:
    """A spec as it was trained, over the seeds of one comparison; ratios are to dense."""

    spec: str
    model: str
    data: str
    epochs: int
    seeds: int
    delta: float
    """Points of accuracy against dense of the same seed, averaged."""
    error: float | None
    """Standard error of delta; None for a single seed."""
    step_ratio: float
    saved_ratio: float
    interleaved: bool = True
    """Whether the runs took turns; else step_ratio compares different minutes."""


@dataclass(frozen=True)
class Option:
    """A setting for the model that was asked about."""

    setting: Setting
    peak: int
    """Predicted bytes at the peak of a training step."""
    fits: bool


@dataclass(frozen=True)
class Advice:
    """All options, the least bytes first, and the one to take; None where none fits."""

    options: list[Option]
    dense_peak: int
    budget: int
    taken: Option | None


def advise(
    model: str,
    batch_size: int,
    budget: int,
    settings: Sequence[Setting],
    *,
    shape: DataShape,
    progress: Callable[[str], None] = lambda _: None,
) -> Advice:
    """The setting to train `model` with in `budget` bytes, of those that were recorded.

    Of what fits: dense, if it does; else what lost at most TOLERATED points of accuracy, its
    standard error counted against it, the fastest first; else what lost least. Peaks are predicted
    for this model and batch, accuracy and time are those of the recorded runs, of whatever model
    those were. Raises InputError on bad values.
    """
    if budget < 1:
        raise InputError(f"budget: expected 1 byte or more, got {budget}")

    def peak(spec: str) -> int:
        progress(spec)
        values = {"model": model, "batch_size": batch_size, "spec": spec}
        return predicted_peak(check(TrainConfig, values), shape)

    plain = Setting("dense", model, "", 0, 0, 0.0, None, 1.0, 1.0)
    known = [plain, *_merged([s for s in settings if s.spec != "dense"])]
    options = [Option(each, size := peak(each.spec), size <= budget) for each in known]
    dense = options[0].peak
    options.sort(key=lambda option: option.peak)
    return Advice(options, dense, budget, _best([option for option in options if option.fits]))


def settings_of(results: Results) -> list[Setting]:
    """What a results.json says of each spec that was trained in it."""
    found = []
    for spec in dict.fromkeys(record.spec for record in results.training):
        runs = [record for record in results.training if record.spec == spec]
        deltas = [run.accuracy_delta for run in runs]
        error = statistics.stdev(deltas) / len(runs) ** 0.5 if len(runs) > 1 else None
        found.append(
            Setting(
                spec=spec,
                model=runs[0].model,
                data=runs[0].data.partition(":")[0],
                epochs=runs[0].epochs,
                seeds=len(runs),
                delta=round(statistics.fmean(deltas), 3),
                error=None if error is None else round(error, 3),
                step_ratio=round(statistics.median(run.ratio_to_dense for run in runs), 3),
                saved_ratio=round(statistics.fmean(run.saved_ratio for run in runs), 4),
                interleaved=results.interleaved,
            )
        )
    return found


@lru_cache(maxsize=1)
def recorded() -> tuple[Setting, ...]:
    """The settings that come with the package."""
    return tuple(Setting(**values) for values in json.loads(RECORDED.read_text("utf-8")))


def dumped(settings: Iterable[Setting]) -> str:
    """As RECORDED holds them, a line each."""
    lines = ",\n".join(json.dumps(asdict(setting)) for setting in settings)
    return f"[\n{lines}\n]\n"


def sentence(advice: Advice) -> str:
    """The answer in words."""
    taken, budget = advice.taken, _mib(advice.budget)
    if taken is None:
        least = advice.options[0]
        return (
            f"Nothing fits {budget}: the least is {_mib(least.peak)}, {least.setting.spec}. "
            "A smaller batch, or more memory, is needed."
        )
    if taken.setting.spec == "dense":
        return f"Dense fits: {_mib(taken.peak)} of {budget}. Keep everything."
    share = taken.peak / advice.dense_peak
    return (
        f"Take {taken.setting.spec}: {_mib(taken.peak)} of {budget} ({share:.0%} of dense's "
        f"{_mib(advice.dense_peak)}), {_accuracy(taken.setting)}, at "
        f"{taken.setting.step_ratio:.2f} of dense's step time."
    )


def chosen(given: Given, budget: int) -> str:
    """What `allocate` chooses for a model of one's own, in words. Raises InputError."""
    made = allocate(given.model, given.batch, budget, optimizer=OPTIMIZER)
    if made.spec == "dense":
        return f"Dense fits: {_mib(made.peak)} of {_mib(budget)}. Keep everything."
    return (
        f"Take {made.spec}: {_mib(made.peak)} of {_mib(budget)} "
        f"({made.peak / made.dense_peak:.0%} of dense's {_mib(made.dense_peak)}), at a gradient "
        f"error of {made.error:.2%} on this batch."
    )


def _accuracy(setting: Setting) -> str:
    error = "" if setting.error is None else f" ± {setting.error:.2f}"
    seeds = f"{setting.seeds} seed{'s' * (setting.seeds > 1)}"
    return f"{setting.delta:+.2f}{error} points of accuracy over {seeds} ({setting.data})"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _merged(settings: Sequence[Setting]) -> list[Setting]:
    """One for each spec: of the comparison with most seeds; of equals, where it lost most.

    Its time is that of a comparison in which the runs took turns, where there is one.
    """
    found = []
    for spec in dict.fromkeys(setting.spec for setting in settings):
        same = [setting for setting in settings if setting.spec == spec]
        best = max(same, key=lambda setting: (setting.seeds, -setting.delta))
        timed = max(same, key=lambda setting: (setting.interleaved, setting is best))
        found.append(replace(best, step_ratio=timed.step_ratio))
    return found


def _best(fitting: Sequence[Option]) -> Option | None:
    def rank(option: Option) -> tuple[Any, ...]:
        setting = option.setting
        error = CHANCE if setting.error is None else setting.error
        lost = max(0.0, round(error - setting.delta - TOLERATED, 6))
        return setting.spec != "dense", lost, setting.step_ratio, option.peak

    return min(fitting, key=rank, default=None)
