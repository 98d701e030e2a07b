"""One A/B run: its figures' effects and verdicts, what is noisy as one family of tests."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from actprune_ci.judge import statistics as st
from actprune_ci.judge.calibration_record import Calibration
from actprune_ci.judge.policy import Policy, Rule
from actprune_ci.judge.verdict import Effect, Verdict, judged, measured
from actprune_ci.model.pairs import AbRun, Pairs
from actprune_ci.model.runs import Key
from actprune_common.errors import InputError


@dataclass(frozen=True)
class Judged:
    """A figure of one A/B run; without a verdict where it was not measured on both sides."""

    pairs: Pairs
    verdict: Verdict | None = None
    effect: Effect | None = None
    detail: str = ""


def judge(run: AbRun, policy: Policy, calibration: Calibration | None) -> dict[Key, Judged]:
    """Each figure of one A/B run; what is noisy is one family of tests."""
    known = {pairs.key: pairs for pairs in run.pairs}
    found: dict[Key, Judged] = {}
    for pairs in run.pairs:
        found[pairs.key] = Judged(pairs)
        if pairs.status != "ok":
            continue
        rule = policy.rule(pairs.key)
        floor = noise_floor(calibration, run.machine, rule, pairs)
        try:
            figure = over_spec(pairs, rule, known)
            effect = measured(figure, rule, policy.statistics.confidence, floor)
        except InputError as problem:
            found[pairs.key] = Judged(pairs, "inconclusive", None, str(problem))
        else:
            found[pairs.key] = Judged(figure, None, effect)
    p = {key: j.effect.p for key, j in found.items() if j.effect and not j.effect.exact}
    flags = st.rejected(list(p.values()), policy.statistics.false_discovery_rate)
    believed = dict(zip(p, flags, strict=True))
    for key, j in found.items():
        if j.effect:
            verdict = judged(j.effect, policy.rule(key), key, bool(believed.get(key, True)))
            found[key] = replace(j, verdict=verdict)
    return found


def over_spec(pairs: Pairs, rule: Rule, known: Mapping[Key, Pairs]) -> Pairs:
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


def noise_floor(calibration: Calibration | None, machine: str, rule: Rule, pairs: Pairs) -> float:
    """The floor of so many pairs, relative; 0 where it is not known, as for ratios to a spec."""
    if calibration is None or rule.ratio_to:
        return 0.0
    return calibration.floor(machine, pairs.key, len(pairs.base))
