"""What a metric means: which way is better, its unit, whether it repeats, what change counts.

`METRICS` is the one registry. A file of results may declare metrics of its own, and a policy may
declare or correct any; `meaning` puts the three together. A metric that nobody declares and whose
unit says nothing is descriptive: it is shown, and never judged.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

Direction = Literal["lower", "higher", "none"]
"""Which way is better; `none`: the metric describes, and no change of it is better or worse."""
Scale = Literal["ratio", "difference"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Metric:
    """The meaning of one metric."""

    direction: Direction = "none"
    unit: str = ""
    """As results write it; empty where it differs from file to file."""
    exact: bool = False
    """Whether the same code gives the same figure again, so that every difference is real."""
    scale: Scale = "ratio"
    """Whether changes are told as ratios or as differences in the unit."""
    smallest: float | None = None
    """The smallest change that counts, on that scale; None: what the policy says of all figures."""
    known: bool = True
    """Whether somebody declared it; else it was guessed from its unit, or is descriptive."""


def _counts(*names: str, direction: Direction, unit: str = "1") -> dict[str, Metric]:
    return {name: Metric(direction, unit, exact=True) for name in names}


METRICS: Mapping[str, Metric] = {
    "time": Metric("lower", "s"),
    "ratio_to_dense": Metric("lower", "ratio"),
    "throughput": Metric("higher"),
    "memory": Metric("lower", "bytes"),
    "peak_memory": Metric("lower", "bytes"),
    "measured_peak": Metric("lower", "bytes"),
    **_counts("predicted_peak", "saved_bytes", direction="lower", unit="bytes"),
    **_counts("store_bytes", "nbytes", direction="lower", unit="bytes"),
    **_counts("saved_ratio", "nbytes_ratio", direction="lower", unit="ratio"),
    **_counts("nnz", direction="lower"),
    "rel_error": Metric("lower", "1"),
    "grad_cosine": Metric("higher", "1", scale="difference", smallest=0.01),
    "accuracy": Metric("higher", "%", exact=True, scale="difference", smallest=0.5),
    "accuracy_delta": Metric("higher", "points", exact=True, scale="difference", smallest=0.5),
    # of executed code, under callgrind: they repeat to 0.4 % and 7 % (docs/history.md)
    "instructions": Metric("lower", "1", exact=True, smallest=0.01),
    "cache_misses": Metric("lower", "1", exact=True, smallest=0.1),
    # of compiled GPU kernels (actprune static)
    **_counts("registers", "spills", "local_stores", "local_loads", direction="lower"),
    **_counts(
        "spill_bytes", "spill_store_bytes", "spill_load_bytes", direction="lower", unit="bytes"
    ),
    **_counts("stack_bytes", "shared_bytes", "code_bytes", direction="lower", unit="bytes"),
    **_counts("registers_of_all", "global_loads", "global_stores", direction="lower"),
    **_counts("global_loads_async", "global_loads_16_bytes", direction="higher"),
    **_counts("global_stores_16_bytes", "bulk_loads", "occupancy", direction="higher"),
    **_counts("wgmma", "tcgen05", direction="higher"),
    **_counts("hmma", "tensor_memory", direction="none"),
}
"""Every metric that actprune's own files have, and those that asv and pytest-benchmark give."""

MOST_NAMES = 10
TIMES = {"s", "ms", "us", "µs", "ns", "seconds", "milliseconds", "microseconds", "nanoseconds"}
BYTES = {"bytes", "B", "kB", "KiB", "MB", "MiB", "GB", "GiB"}
PERCENTS = {"%", "percent", "points"}
RATE = re.compile(r"[^/]+/\s*(?:s|sec|second|ms)|(?:it|op|ops|flop|flops|tflops|gflops)s?/s", re.I)


def listed(names: Collection[str]) -> str:
    """Return the names of metrics for a sentence: in order, and of many the first ones."""
    return ", ".join(sorted(names)[:MOST_NAMES]) + ", ..." * (len(names) > MOST_NAMES)


def of_unit(unit: str) -> Metric:
    """Return what a unit alone tells: times and bytes are better low, rates high, else nothing."""
    if unit in TIMES or unit in BYTES:
        return Metric("lower", unit, known=False)
    return Metric("higher" if RATE.fullmatch(unit) else "none", unit, known=False)


def meaning(metric: str, unit: str, *declared: Mapping[str, Metric]) -> Metric:
    """Return what a metric means.

    Args:
        metric: its name.
        unit: the unit that its figures come in.
        declared: by metric, what a policy and then a file of results declare; the first that names
            the metric counts, then the registry, then the unit.
    """
    for known in (*declared, METRICS):
        if (found := known.get(metric)) is not None:
            foreign = found.unit and found.unit != unit and not {found.unit, unit} <= PERCENTS
            if foreign and found.scale == "difference":  # half a point of 81 %, and not of 0.81
                return replace(found, unit=unit, smallest=None)
            return replace(found, unit=found.unit or unit)
    return of_unit(unit)
