"""The figures of base and head: each one's change, its interval, and one of four verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import expm1, log1p, nan
from typing import Literal

import numpy as np

from actprune_ci.judge import statistics as st
from actprune_ci.judge.calibration_record import Calibration
from actprune_ci.judge.policy import ROUNDING, Policy, Selection, Terms
from actprune_ci.model.metrics import BYTES
from actprune_ci.model.runs import AbRun, Key, Pairs
from actprune_common.errors import InputError

Verdict = Literal["faster", "slower", "changed", "same", "inconclusive"]
"""`changed`: a figure without a direction, which is never better or worse."""
SUSPICIOUS = 10
"""Times the scatter of its pairs: a change for the worse that is named, however few they are."""
CHANGED: tuple[Verdict, ...] = ("slower", "faster", "changed")


@dataclass(frozen=True)
class Effect:
    """How far head is from base; above zero is more, whichever way is better."""

    base: float
    head: float
    """Medians, in the figure's unit."""
    change: float
    low: float
    high: float
    """The median change and its interval: relative, or in the unit where `absolute`."""
    absolute: bool
    exact: bool
    p: float
    floor: float
    """The noise floor on the same scale: this machine shows as much between equal commits."""
    changes: tuple[float, ...]
    """Of each pair."""


def measured(
    pairs: Pairs, terms: Terms, confidence: float, noise: Calibration | None = None
) -> Effect:
    """The effect in pairs that are ok, by statistics or, for an exact figure, by its values.

    Relative changes are medians of log-ratios. The noise floor is 0 where it is not known, as for
    ratios to a spec. Raises InputError where a ratio does not exist.
    """
    floor = noise.floor(pairs.key, len(pairs.base)) if noise and not terms.rule.ratio_to else 0.0
    base, head = np.array(pairs.base), np.array(pairs.head)
    absolute = terms.smallest_change is not None
    if terms.exact or repeats(base, head, terms):
        return _exact(base, head, absolute)
    d = head - base if absolute else st.log_ratios(base, head)
    low, high = st.median_interval(d, confidence)
    ends = (float(np.median(d)), float(low), float(high))
    changes = tuple((d if absolute else np.expm1(d)).tolist())
    medians = float(np.median(base)), float(np.median(head))
    change, low_, high_ = ends if absolute else map(expm1, ends)
    p = float(st.signed_rank(d))
    return Effect(*medians, change, low_, high_, absolute, False, p, floor, changes)


def repeats(base: st.Array, head: st.Array, terms: Terms) -> bool:
    """Whether bytes that nobody declared were the same in every fresh process of each side."""
    guessed = not terms.metric.known and terms.rule.exact is None and terms.metric.unit in BYTES
    return guessed and all(len(side) > 1 and not np.ptp(side) for side in (base, head))


def _exact(base: st.Array, head: st.Array, absolute: bool) -> Effect:
    """The change of medians; its interval is the whole range where values vary within a side."""
    medians = float(np.median(base)), float(np.median(head))
    constant = base.min() == base.max() and head.min() == head.max()
    absolute = absolute or float(base.min()) <= 0
    ends = [(medians[0], medians[1]), (base.max(), head.min()), (base.min(), head.max())]
    change, low, high = (float(b - a if absolute else b / a - 1) for a, b in ends)
    changes = tuple((head - base if absolute else head / base - 1).tolist())
    p = 0.0 if constant else nan
    return Effect(*medians, change, low, high, absolute, True, p, 0.0, changes)


def judged(effect: Effect, terms: Terms, believed: bool) -> Verdict:
    """The verdict on an effect; `believed`: Benjamini and Hochberg's procedure rejects equality."""
    sign = -1 if terms.direction == "higher" else 1
    ends = np.array([effect.change, effect.low, effect.high])
    least = terms.smallest_change or 0.0
    if effect.exact:
        if effect.base == effect.head and effect.low == effect.high:
            return "same"
        least = max(least - ROUNDING, 0.0) if effect.absolute else terms.smallest_effect
        believed = True
    floor = effect.floor
    if not effect.absolute and not effect.exact:
        with np.errstate(divide="ignore"):
            ends = np.log1p(ends)
        least, floor = log1p(terms.smallest_effect), log1p(floor)
    low, high = sorted((sign * ends[1:]).tolist())
    middle, low_, high_, sure = map(np.array, (sign * ends[0], low, high, believed))
    found = VERDICTS[int(codes(middle, low_, high_, sure, least, floor))]
    return "changed" if terms.direction == "none" and found in CHANGED else found


VERDICTS: tuple[Verdict, ...] = ("inconclusive", "same", "slower", "faster")


def codes(
    middle: st.Array,
    low: st.Array,
    high: st.Array,
    believed: st.Flags,
    smallest: float | st.Array,
    floor: float | st.Array,
) -> st.Array:
    """Indices into VERDICTS of many medians with their intervals; above zero is worse.

    `slower` and `faster`: the interval lies whole beyond the smallest effect that matters, the
    median beyond the noise floor, and the change is believed. `same`: the interval lies within the
    smallest effect. All else is inconclusive.
    """
    same = (low >= -smallest) & (high <= smallest)
    worse = believed & (low > smallest) & (middle > floor)
    better = believed & (high < -smallest) & (middle < -floor)
    return np.select([worse, better, same], [2.0, 3.0, 1.0], 0.0)


def recurring(verdicts: Sequence[Verdict], repeats: int) -> Verdict:
    """The verdict of the last `repeats` A/B runs: a change must stand in each of them.

    Where it does not, the figure is the same if one run shows that, else the answer is open.
    """
    last = list(verdicts[-repeats:])
    changed = {v for v in last if v in CHANGED}
    if len(set(last)) == 1 and (len(last) == repeats or not changed):
        return last[0]
    return "same" if "same" in last and len(changed) < 2 else "inconclusive"


def excludes_worse(effect: Effect, terms: Terms) -> bool:
    """Whether a change for the worse that matters is out of the question, whatever the verdict."""
    if terms.direction == "none":
        return True
    worst = effect.high if terms.direction == "lower" else -effect.low
    if effect.absolute:
        return worst <= (terms.smallest_change or 0)
    if terms.direction == "higher":
        return effect.low >= expm1(-log1p(terms.smallest_effect))
    return worst <= terms.smallest_effect


def suspicious(effect: Effect, terms: Terms) -> bool:
    """Whether a change for the worse is so far beyond the scatter of its pairs that it is named.

    Few pairs prove nothing to a rank test, however large the change.
    """
    d = np.array(effect.changes)
    if len(d) < 2 or not terms.worse(effect.change):
        return False
    d = d if effect.absolute else np.log1p(d)
    least = terms.smallest_change if effect.absolute else np.log1p(terms.smallest_effect)
    floor = effect.floor if effect.absolute else np.log1p(effect.floor)
    middle = abs(float(np.median(d)))
    return middle > max(SUSPICIOUS * float(st.spread(d)), float(least or 0), float(floor))


@dataclass(frozen=True)
class Judged:
    """A figure of one A/B run; without a verdict where it was not measured on both sides."""

    pairs: Pairs
    verdict: Verdict | None = None
    effect: Effect | None = None
    detail: str = ""


def judge(run: AbRun, policy: Policy, noise: Calibration | None) -> dict[Key, Judged]:
    """Each figure of one A/B run; what is noisy is one family. `noise`: of the run's machine."""
    known = {pairs.key: pairs for pairs in run.pairs}
    found: dict[Key, Judged] = {}
    for pairs in run.pairs:
        found[pairs.key] = Judged(pairs)
        if pairs.status != "ok":
            continue
        terms = policy.terms(pairs.key, run.metrics)
        try:
            figure = over_spec(pairs, terms.rule, known)
            effect = measured(figure, terms, policy.statistics.confidence, noise)
            found[pairs.key] = Judged(figure, None, effect)
        except InputError as problem:
            found[pairs.key] = Judged(pairs, "inconclusive", None, str(problem))
    p = {key: j.effect.p for key, j in found.items() if j.effect and not j.effect.exact}
    flags = st.rejected(list(p.values()), policy.statistics.false_discovery_rate)
    believed = dict(zip(p, flags, strict=True))
    for key, j in found.items():
        if j.effect:
            verdict = judged(
                j.effect, policy.terms(key, run.metrics), bool(believed.get(key, True))
            )
            found[key] = replace(j, verdict=verdict)
    return found


def over_spec(pairs: Pairs, rule: Selection, known: Mapping[Key, Pairs]) -> Pairs:
    """The pairs over those of the rule's `ratio_to`, round by round; as they are without one.

    Raises InputError where that spec was not measured in the same rounds.
    """
    own = dict(pairs.key.params).get("spec", rule.ratio_to)
    if rule.ratio_to is None or own == rule.ratio_to:
        return pairs
    other = known.get(pairs.key.of_spec(rule.ratio_to))
    if other is None or len(other.base) != len(pairs.base):
        raise InputError(f"ratio to {rule.ratio_to}: it was not measured in the same rounds")
    if not all(x > 0 for x in (*other.base, *other.head)):
        raise InputError(f"ratio to {rule.ratio_to}: expected figures above 0")
    base, head = np.array(pairs.base) / other.base, np.array(pairs.head) / other.head
    return replace(pairs, base=tuple(base.tolist()), head=tuple(head.tolist()))
