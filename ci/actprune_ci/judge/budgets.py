"""Budgets: bounds that head's figures must keep, whatever base did."""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from actprune_ci.judge import statistics as st
from actprune_ci.judge.policy import Budget, Policy, keeps
from actprune_ci.judge.report import Finding, Outcome
from actprune_ci.model.runs import AbRun, Key, Run

BEYOND = "every sample is over the budget, and they are too few to prove it"
Samples = Mapping[Key, tuple[float, ...]]


def budget_findings(policy: Policy, runs: Sequence[AbRun], results: Sequence[Run]) -> list[Finding]:
    """A finding per budget and figure that it selects; one for a budget that selects none.

    Samples are those of head in the last A/B runs (as many as must agree) and in the results.
    """
    heads: list[Samples] = [
        {p.key: p.head for p in run.pairs if p.status == "ok"}
        for run in runs[-policy.statistics.repeats :]
    ]
    heads += [
        {m.key.unversioned: m.samples for m in run.measurements if m.status == "ok"}
        for run in results
    ]
    told = {pairs.key for run in runs for pairs in run.pairs if pairs.status == "failed"}
    failed = {
        m.key.unversioned: m.detail
        for run in results
        for m in run.measurements
        if m.status == "failed" and m.key.unversioned not in told
    }
    findings = [
        Finding.under(policy.rule(key), key, "failed", detail) for key, detail in failed.items()
    ]
    for budget in policy.budgets:
        keys = filter(budget.selects, dict.fromkeys(chain(*heads)))
        found = [f for key in keys if (f := _kept(budget, key, heads, policy))]
        findings += found or [_unmeasured(budget)]
    return findings


def _kept(budget: Budget, key: Key, heads: Sequence[Samples], policy: Policy) -> Finding | None:
    values = np.array([v for head in heads for v in _values(budget, key, head)])
    if not values.size:
        return None
    low, high = float(values.min()), float(values.max())
    exact = low == high
    if not exact:
        low, high = map(float, st.median_interval(values, policy.statistics.confidence))
    inside = {keeps(end, budget.bound) for end in (low, high)}
    outcome: Outcome = "within budget" if inside == {True} else "over budget"
    if len(inside) == 2:
        outcome = "inconclusive"
    detail = "" if exact else f"median of {values.size}, interval {low:.6g} to {high:.6g}"
    forbidden = outcome == "inconclusive" and budget.forbid_inconclusive
    odd = outcome == "inconclusive" and not any(keeps(value, budget.bound) for value in values)
    if odd:
        detail += f"; {BEYOND}"
    own = {"value": float(np.median(values)), "bound": budget.bound, "certain": exact}
    return Finding.under(budget, key, outcome, detail, forbidden=forbidden, suspicious=odd, **own)


def _values(budget: Budget, key: Key, head: Samples) -> tuple[float, ...]:
    """The samples of a figure in one run, over those of the budget's `ratio_to`.

    Round by round where both have as many, else median over median; none where that is missing.
    """
    own = head.get(key, ())
    if budget.ratio_to is None or not own:
        return own
    other = head.get(key.of_spec(budget.ratio_to), ())
    if not other or min(other) <= 0:
        return ()
    if len(other) == len(own):
        return tuple((np.array(own) / other).tolist())
    return (float(np.median(own) / np.median(other)),)


def _unmeasured(budget: Budget) -> Finding:
    key = Key(budget.benchmark, tuple(sorted(budget.params.items())), budget.metric, "")
    outcome: Outcome = "vanished" if budget.required else "skipped"
    detail = "no figure was measured for this budget"
    return Finding.under(budget, key, outcome, detail, bound=budget.bound)
