"""Figures of `benchmarks.scripts.graphs` from what was measured, and what budgets are given."""

import statistics
from collections.abc import Sequence
from typing import Any

from actprune.graph.plan import Plan
from actprune_common.errors import expected

Row = dict[str, Any]
EAGER, COMPILED, CHECKPOINTING = "eager", "compiled", "checkpoint"
PLANNED, TORCH, SWEPT = "planned", "torch", "swept"
"""Kinds of rows: torch's are those with its activation_memory_budget."""
BASES = (EAGER, COMPILED)
"""What a budget may be a share of."""


def share_of(budget: str) -> tuple[str, float]:
    """Return what a budget is a share of, and the share: "0.03", "compiled:0.12".

    Raises InputError.
    """
    base, _, share = budget.rpartition(":")
    try:
        found = float(share)
    except ValueError:
        found = -1.0
    if (base or EAGER) not in BASES or not 0 < found <= 1:
        raise expected("budget", "a share such as 0.03 or compiled:0.12", repr(budget))
    return base or EAGER, found


def swept(most: int, fewest: int, count: int) -> list[int]:
    """Return budgets from the most to the fewest, each the same share of the one before.

    Where the fewest are next to none, all but the last go to a hundredth of the most.

    Example:
        >>> swept(800, 100, 4), swept(1000, 0, 4)
        ([800, 400, 200, 100], [1000, 100, 10, 2])
    """
    low = max(fewest, most // 100)
    steps = count - 1 if low == fewest else count - 2
    levels = [round(most * (low / most) ** (place / steps)) for place in range(steps + 1)]
    return levels if low == fewest else [*levels, max(fewest, 2)]  # 1 would be a share


def timing(samples: Sequence[float], dense: Sequence[float]) -> Row:
    """Return samples, and the median and quartiles of their ratios to dense of the same round."""
    ratios = [mine / other for mine, other in zip(samples, dense, strict=True)]
    lower, _, upper = (
        statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    )
    return {
        "samples_ms": list(samples),
        "step": statistics.median(ratios),
        "scatter": [lower, upper],
    }


def predicted(plan: Plan, row: Row, dense: Row) -> Row:
    """Return what a plan says of itself, beside what was measured."""
    found: Row = {
        "held_predicted": plan.held,
        "error_predicted": sum(graph.error**2 for graph in plan.graphs) ** 0.5,
        "seconds_predicted": plan.seconds,
        "gap": max(graph.gap for graph in plan.graphs),
        "more_graphs": row["graphs"] - dense["graphs"],
        "of_limit": max(row[f"{of}_bytes"] / limit for of, limit in row["limit"].items()),
    }
    if len(plan.graphs) == 1:  # the peak of several is no plan's
        (graph,) = plan.graphs
        found |= {"peak_predicted": graph.peak, "dense_peak_predicted": graph.dense_peak}
        found["peak_off"] = abs(graph.peak / row["peak_bytes"] - 1)
    return found


def beside_torch(rows: dict[str, Row]) -> None:
    """Compare plans to what torch's budgets were found to hold and cost."""
    torchs = {
        s: row for s, row in rows.items() if row["kind"] in (TORCH, COMPILED) and "step" in row
    }
    points = {s: (row["held_bytes"], row["step"]) for s, row in torchs.items()}
    if not any(row["kind"] == TORCH for row in torchs.values()):
        return
    for row in rows.values():
        if row["kind"] == PLANNED and "step" in row:
            nbytes, step = equal_bytes(row["held_bytes"], list(points.values()))
            same_time = bytes_at(row["step"], list(points.values()))
            row["equal_bytes"] = next(s for s, each in points.items() if each == (nbytes, step))
            row["time_at_equal_bytes"] = row["step"] / step
            row["bytes_at_equal_time"] = (
                None if same_time is None else row["held_bytes"] / same_time
            )


def equal_bytes(held: float, points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return bytes and time of the nearest point that holds no less, or else of the largest.

    To hold more can only make it faster.

    Args:
        held: bytes.
        points: bytes and times.

    Example:
        >>> equal_bytes(40, [(100, 1.0), (50, 2.0), (30, 3.0)])
        (50, 2.0)
    """
    return min((point for point in points if point[0] >= held), default=max(points))


def bytes_at(step: float, points: Sequence[tuple[float, float]]) -> float | None:
    """Return the fewest bytes with which a step takes that time, between points on straight lines.

    A budget between two that were tried may do better than either, so this is nearer to the least
    than what was tried. None: no point is as fast.

    Args:
        step: its time.
        points: bytes and times.

    Example:
        >>> bytes_at(1.5, [(100, 1.0), (50, 2.0)])
        75.0
    """
    fewest = [held for held, time in points if time <= step]
    for held, time in points:
        for other, faster in points:
            if faster <= step < time:
                fewest.append(other + (held - other) * (step - faster) / (time - faster))
    return min(fewest, default=None)
