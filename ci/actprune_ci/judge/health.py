"""The machine's health: when its clock and its noise are not to be believed."""

from collections.abc import Iterable, Sequence

import numpy as np

from actprune_ci.judge import statistics as st
from actprune_ci.judge.ab_run import judge
from actprune_ci.judge.calibration_record import Calibration
from actprune_ci.judge.policy import Policy
from actprune_ci.model.pairs import AbRun


def broken(
    runs: Sequence[AbRun],
    sentinels: Sequence[AbRun],
    policy: Policy,
    calibration: Calibration | None,
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
        yield from _too_noisy(run, policy, calibration)
    for run in sentinels:
        for key, j in judge(run, policy, calibration).items():
            if j.verdict in ("slower", "faster") and j.effect:
                yield f"{key}: {j.verdict} by {abs(j.effect.change):.2%} between equal commits"


def _too_noisy(run: AbRun, policy: Policy, calibration: Calibration | None) -> Iterable[str]:
    if calibration is None or calibration.machine != run.machine:
        return
    factors = [
        float(st.spread(st.log_ratios(pairs.base, pairs.head))) / noise.spread
        for pairs in run.pairs
        if pairs.status == "ok" and (noise := calibration.of(pairs.key)) and noise.spread > 0
        if min((*pairs.base, *pairs.head)) > 0
    ]
    if factors and (factor := float(np.median(factors))) > policy.machine.noise_factor:
        allowed = policy.machine.noise_factor
        yield f"noise is {factor:.3g} times that of calibration, allowed are {allowed:g}"
