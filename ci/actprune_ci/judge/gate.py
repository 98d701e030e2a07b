"""The gate: A/B runs and results under a policy become findings, and findings an exit code."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from actprune_ci.judge import statistics as st
from actprune_ci.judge.budgets import budget_findings
from actprune_ci.judge.calibration_record import Calibration
from actprune_ci.judge.identity import distinct
from actprune_ci.judge.policy import Policy, Terms
from actprune_ci.judge.report import Finding, Outcome, Report, exit_code
from actprune_ci.judge.verdict import (
    CHANGED,
    Judged,
    Verdict,
    excludes_worse,
    judge,
    measured,
    recurring,
    suspicious,
)
from actprune_ci.model.dates import instant
from actprune_ci.model.documents import Acknowledged
from actprune_ci.model.metrics import Metric, listed
from actprune_ci.model.runs import (
    NEITHER,
    NEW,
    NOT_INTERLEAVED,
    OF_THE_RUN,
    RENEWED,
    VANISHED,
    AbRun,
    Key,
    Note,
    Pairs,
    Run,
)
from actprune_common.errors import InputError

TOO_FEW = "far beyond the scatter of its pairs, which are too few to prove it: repeat it"
Settled = Callable[[Finding, str, str, str], Acknowledged | None]
"""Who settled a finding and why, from it, the machine, base and head."""


def gate(
    policy: Policy,
    ab: Sequence[AbRun],
    results: Sequence[Run] = (),
    calibration: Calibration | None = None,
    settled: Settled = lambda *_: None,
) -> Report:
    """The report on A/B runs of one base and head, on one machine, and on head's results.

    A/B runs of equal commits are sentinels: a change in one of them is the machine's. A run that is
    given twice counts once. A finding that is `settled` is shown, and counts no more. Raises
    InputError where machines, bases or heads are mixed.
    """
    declared = dict(chain(*(run.metrics.items() for run in ab)))
    given, ab = ab, [replace(run, metrics=declared) for run in distinct(ab)]
    sentinels = [run for run in ab if run.base == run.head]
    runs = sorted((run for run in ab if run.base != run.head), key=lambda run: instant(run.date))
    _unmixed(ab, runs or sentinels)
    noise = calibration if ab and calibration and calibration.machine == ab[0].machine else None
    compared = [judge(run, policy, noise) for run in runs]
    of_figures = _compared(compared, policy, declared, noise)
    findings = of_figures + budget_findings(policy, runs, results)
    judged = _judged(findings, of_figures, policy, declared)
    reasons = tuple(dict.fromkeys(broken(runs, sentinels, policy, noise)))
    checked = any(pairs.status == "ok" for run in sentinels for pairs in run.pairs)
    last = (runs or sentinels)[-1] if ab else None
    about = last or (results[-1] if results else None)
    if last:
        sides = last.machine, last.base, last.head
        findings = [replace(f, acknowledged=settled(f, *sides)) for f in findings]
    notes = (*_notes(ab, calibration), *_about(len(given) - len(ab), of_figures, policy, declared))
    return Report(
        exit_code(findings, reasons, checked, judged, policy.statistics.least_judged),
        last.base if last else "",
        last.head if last else (results[-1].commit if results else ""),
        about.machine if about else "",
        about.date if about else "",
        tuple(findings),
        reasons,
        tuple(dict.fromkeys(chain(*(run.notes for run in ab), notes))),
        differences(last) if last else (),
        calibration,
        judged=judged,
    )


def _judged(
    findings: Sequence[Finding],
    of_figures: Sequence[Finding],
    policy: Policy,
    declared: Mapping[str, Metric],
) -> tuple[int, int]:
    """How many figures have an answer, of how many that are asked for.

    Where nothing else was, those whose metrics nobody declares are: each may have become worse.
    """
    asked = [f for f in of_figures if f.asked]
    if not asked and not any(f.bound and f.was_measured for f in findings):
        return 0, sum(_undeclared(f, policy, declared) for f in of_figures if f.effect)
    return sum(f.answered for f in asked), len(asked)


def _undeclared(finding: Finding, policy: Policy, declared: Mapping[str, Metric]) -> bool:
    """Whether nobody says what a figure's metric means."""
    return finding.direction == "none" and not policy.terms(finding.key, declared).metric.known


def differences(run: AbRun) -> tuple[tuple[str, str, str], ...]:
    """(fact, of base, of head) of the two environments, where they differ; `-`: not known."""
    base, head = run.environment_base, run.environment_head
    return tuple(
        (name, base.get(name, "-"), head.get(name, "-"))
        for name in sorted({*base, *head} - OF_THE_RUN)
        if base.get(name) != head.get(name)
    )


def _unmixed(ab: Sequence[AbRun], runs: Sequence[AbRun]) -> None:
    for name, values in (
        ("machines", {run.machine for run in ab}),
        ("bases", {run.base for run in runs}),
        ("heads", {run.head for run in runs}),
    ):
        if len(values) > 1:
            raise InputError(f"A/B runs: {name} are never mixed, got {', '.join(sorted(values))}")


def _compared(
    compared: Sequence[Mapping[Key, Judged]],
    policy: Policy,
    declared: Mapping[str, Metric],
    noise: Calibration | None,
) -> list[Finding]:
    findings = []
    each = chain(*(found.values() for found in compared))
    in_turn = any(j.pairs.detail != NOT_INTERLEAVED and j.effect for j in each)
    for key in dict.fromkeys(chain(*compared)):
        terms = policy.terms(key, declared)
        entries = [found[key] for found in compared if key in found]
        usable = [j for j in entries if j.pairs.status == "ok"]
        gone = entries[-1].pairs.detail == VANISHED or entries[-1].pairs.status == "failed"
        if gone or not usable:
            findings.append(_missing(entries[-1].pairs, terms, in_turn))
        else:
            findings.append(_finding(usable, terms, policy, noise))
    return findings


def _missing(pairs: Pairs, terms: Terms, in_turn: bool) -> Finding:
    """A figure without pairs. Times of another tool are not asked for where some were paired."""
    outcome: Outcome = "skipped"
    if pairs.status == "failed":
        outcome = "failed" if not pairs.head else "new"
    elif pairs.detail in (NEW, VANISHED):
        outcome = "new" if pairs.detail == NEW else "vanished"
    detail = pairs.detail if pairs.detail != outcome else ""
    asked = outcome != "new" and pairs.detail not in (RENEWED, NEITHER)
    asked = asked and not (in_turn and pairs.detail == NOT_INTERLEAVED)
    return _of(terms, pairs.key, outcome, detail, asked=asked)


def _of(terms: Terms, key: Key, outcome: Outcome, detail: str = "", **more: Any) -> Finding:
    """A finding under a figure's terms: what is only described is asked for by nobody."""
    rule = terms.rule
    more["asked"] = (
        more.get("asked", True)
        and rule.asked
        and rule.severity != "info"
        and terms.direction != "none"
    )
    return Finding.under(rule, key, outcome, detail, direction=terms.direction, **more)


def _finding(
    entries: Sequence[Judged], terms: Terms, policy: Policy, noise: Calibration | None
) -> Finding:
    key, last, forbid = entries[-1].pairs.key, entries[-1], terms.rule.forbid_inconclusive
    asked = policy.statistics
    if last.effect is None:
        return _of(terms, key, "inconclusive", last.detail, forbidden=forbid)
    if last.effect.exact and last.verdict:
        open_ = last.verdict == "inconclusive" and not excludes_worse(last.effect, terms)
        odd = open_ and suspicious(last.effect, terms)
        more = {"effect": last.effect, "doubtful": open_, "suspicious": odd}
        return _of(terms, key, last.verdict, TOO_FEW if odd else "", certain=True, **more)
    recent = [e for e in entries if e.effect][-asked.repeats :]
    verdicts = [e.verdict for e in recent if e.verdict]
    verdict = recurring(verdicts, asked.repeats)
    base = tuple(chain(*(e.pairs.base for e in recent)))
    head = tuple(chain(*(e.pairs.head for e in recent)))
    effect = measured(Pairs(key, base, head), terms, asked.confidence, noise)
    doubt = verdict == "inconclusive" and not excludes_worse(effect, terms)
    odd = doubt and suspicious(effect, terms)
    return _of(
        terms,
        key,
        verdict,
        _why(verdict, verdicts, asked.repeats) or (TOO_FEW if odd else ""),
        effect=effect,
        forbidden=doubt and forbid,
        doubtful=doubt,
        unconfirmed=verdict == "inconclusive" and (odd or _open(verdicts)),
        suspicious=odd,
    )


def _why(verdict: Verdict, verdicts: Sequence[Verdict], repeats: int) -> str:
    changed = [v for v in verdicts if v in CHANGED]
    if not changed or verdict == changed[-1]:
        return ""
    if _open(verdicts):
        return f"{changed[-1]} in {len(changed)} of {repeats} A/B runs: repeat it"
    return f"did not recur: {', '.join(verdicts)}"


def _open(verdicts: Sequence[Verdict]) -> bool:
    """Whether a change was seen against which no other of the last A/B runs speaks."""
    return len({*verdicts} & {*CHANGED}) == 1 and "same" not in verdicts


def _notes(ab: Sequence[AbRun], calibration: Calibration | None) -> list[Note]:
    if ab and calibration is None:
        return [Note("no-calibration", "no calibration: noise floors are not known")]
    if ab and calibration and calibration.machine != ab[0].machine:
        other = f"the calibration is of another machine ({calibration.machine}): no noise floors"
        return [Note("other-calibration", other)]
    return []


def _about(
    copies: int, findings: Sequence[Finding], policy: Policy, declared: Mapping[str, Metric]
) -> Iterable[Note]:
    """What the report must say of its input: runs given twice, metrics that nobody declares."""
    if copies:
        yield Note("same-run", f"{copies} of the A/B runs are copies of another: counted once")
    unknown = {f.key.metric for f in findings if _undeclared(f, policy, declared)}
    if unknown:
        yield Note(
            "unknown-metric",
            f"{len(unknown)} metrics that nobody declares are shown and not judged:"
            f" {listed(unknown)} (policy: metrics: {{NAME: {{direction: lower}}}})",
        )


def broken(
    runs: Sequence[AbRun], sentinels: Sequence[AbRun], policy: Policy, noise: Calibration | None
) -> Iterable[str]:
    """Why the machine is not to be believed: nothing, on a sound one.

    A note of an A/B run says so (its code is in the policy's `broken_by`); a time is 0 or less, so
    the clock jumped; pairs scatter more than `noise_factor` times as in calibration; or a benchmark
    changed in an A/B run of equal commits.
    """
    for run in (*runs, *sentinels):
        yield from (n.text for n in run.notes if n.code in policy.machine.broken_by)
        for pairs in run.pairs:
            if pairs.key.metric == "time" and min((*pairs.base, *pairs.head), default=1) <= 0:
                yield f"{pairs.key}: a time of 0 or less: the clock jumped"
        if noise:
            yield from _too_noisy(run, policy.machine.noise_factor, noise)
    for run in sentinels:
        for key, j in judge(run, policy, noise).items():
            if j.verdict in ("slower", "faster") and j.effect:
                yield f"{key}: {j.verdict} by {abs(j.effect.change):.2%} between equal commits"


def _too_noisy(run: AbRun, allowed: float, calibration: Calibration) -> Iterable[str]:
    factors = [
        float(st.spread(st.log_ratios(pairs.base, pairs.head))) / noise.spread
        for pairs in run.pairs
        if pairs.status == "ok" and (noise := calibration.of(pairs.key)) and noise.spread > 0
        if min((*pairs.base, *pairs.head)) > 0
    ]
    if factors and (factor := float(np.median(factors))) > allowed:
        yield f"noise is {factor:.3g} times that of calibration, allowed are {allowed:g}"
