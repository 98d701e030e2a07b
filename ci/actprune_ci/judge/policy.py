"""The policy: what counts as a regression, in strict YAML (docs/gate.md lists every key)."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import isnan
from operator import eq, ge, gt, le, lt
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from actprune_ci.model.metrics import Direction, Metric, meaning
from actprune_ci.model.runs import Code, Key
from actprune_common.strict_yaml import load_yaml

Severity = Literal["error", "warning", "info"]

HERE = Path("ci/policy.yml")
"""Where a repository has its policy."""
ROUNDING = 1e-9
"""So that 81.1 - 80.1 is a drop of one point."""
COMPARE = {"<=": le, ">=": ge, "==": eq, "<": lt, ">": gt}


def _pattern(text: str) -> str:
    if _is_regex(text):
        try:
            re.compile(text[1:-1])
        except re.error as problem:
            raise ValueError(f"no regular expression: {problem}, got {text!r}") from None
    return text


def _bound(text: str) -> str:
    limit(text)
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
"""A glob over the whole text, or a regular expression between slashes, found anywhere in it."""
Bound = Annotated[str, AfterValidator(_bound)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """A part of a file of ours: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Statistics(Strict):
    """How sure the gate must be."""

    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of each interval."""
    false_discovery_rate: float = Field(0.01, gt=0, lt=1)
    """Over all noisy figures of one A/B run, by Benjamini and Hochberg."""
    repeats: int = Field(2, ge=1)
    """In how many A/B runs, the last ones, a change must show."""
    least_judged: float = Field(0.8, ge=0, le=1)
    """Of the compared figures that rules ask for, the share that must have an answer."""


class Machine(Strict):
    """When the machine is not to be believed."""

    noise_factor: Positive = 4.0
    """Broken where the median spread of all benchmarks is this many times that of calibration."""
    broken_by: tuple[Code, ...] = ("clock-jumped", "device-lost")
    """Codes of an A/B run's notes that say the machine broke."""


def _no_patterns(machine: Any) -> Any:
    if isinstance(machine, dict) and "broken_notes" in machine:
        raise ValueError(
            "broken_notes was a pattern over the notes' texts: write broken_by, a list of"
            " their codes, such as [clock-jumped, device-lost]"
        )
    return machine


class Figures(Strict):
    """Which figures something is about."""

    benchmark: Pattern = "*"
    params: Mapping[str, Pattern] = {}
    metric: Pattern = "*"

    def selects(self, key: Key) -> bool:
        """Whether a figure is among these."""
        values = dict(key.params)
        return (
            matches(self.benchmark, key.benchmark)
            and matches(self.metric, key.metric)
            and all(k in values and matches(p, values[k]) for k, p in self.params.items())
        )


class Selection(Figures):
    """Which figures a rule or a budget is about, and who answers for it."""

    ratio_to: str | None = None
    """A spec: the figure is taken over that of this spec, same run, other parameters equal."""
    severity: Severity = "error"
    owner: str = ""
    reason: str = ""
    forbid_inconclusive: bool = False


class Rule(Selection):
    """How head is compared with base."""

    direction: Direction | None = None
    """Which way is better, or `none`; where it is not said, what the metric means."""
    smallest_effect: Positive = 0.02
    """The smallest relative change that matters."""
    smallest_change: float | None = Field(None, ge=0, allow_inf_nan=False)
    """In its place: the smallest absolute change that matters, in the figure's unit."""
    exact: bool | None = None
    """Compared without statistics; where it is not said, what the metric means."""
    asked: bool = True
    """Whether a figure without an answer counts against `least_judged`."""

    def terms(self, metric: Metric) -> "Terms":
        """Return how a figure of a metric is judged under this rule."""
        if self.ratio_to:  # a ratio has no unit in which a change of it could be told
            metric = replace(metric, scale="ratio", smallest=None)
        exact = self.exact if self.exact is not None else metric.exact and not self.ratio_to
        own = {"smallest_effect", "smallest_change"} & self.model_fields_set
        effect, change = self.smallest_effect, self.smallest_change
        if metric.scale == "ratio" and (exact or metric.smallest is not None):
            tolerance = metric.smallest or 0.0
            effect = effect if tolerance and "smallest_effect" in own else tolerance
        if not own and metric.scale == "difference":
            change = metric.smallest or 0.0
        return Terms(self, metric, self.direction or metric.direction, exact, effect, change)


@dataclass(frozen=True)
class Terms:
    """How one figure is judged: its rule, with what its metric means filled in."""

    rule: Rule
    metric: Metric
    direction: Direction
    exact: bool
    """Whether the smallest change is real."""
    smallest_effect: float
    """The smallest relative change that matters; 0: any."""
    smallest_change: float | None
    """In its place, the smallest absolute one, in the figure's unit."""

    def worse(self, change: float) -> bool:
        """Whether a change of this sign is one for the worse."""
        return {"lower": change > 0, "higher": change < 0, "none": False}[self.direction]

    def matters(self, before: float, after: float) -> bool:
        """Whether the change from one level to another is as large as counts."""
        if self.smallest_change is not None:
            return abs(after - before) > max(self.smallest_change - ROUNDING, 0.0)
        if min(before, after) <= 0:
            return before != after
        return max(before, after) / min(before, after) - 1 > self.smallest_effect


def _selects_all(rule: Rule) -> Rule:
    if narrow := {"benchmark", "params", "metric"} & rule.model_fields_set:
        raise ValueError(f"applies to all figures, so without {', '.join(sorted(narrow))}")
    return rule


class Budget(Selection):
    """A bound that head must keep, whatever base did."""

    bound: Bound
    """`<= 0.105`: one of <= >= == < >, and a number in the figure's unit."""
    required: bool = False
    """Whether it is a failure that no figure was measured."""


class Policy(Strict):
    """A whole policy."""

    statistics: Statistics = Statistics()
    machine: Annotated[Machine, BeforeValidator(_no_patterns)] = Machine()
    defaults: Annotated[Rule, AfterValidator(_selects_all)] = Rule()
    """For figures that no rule selects."""
    rules: tuple[Rule, ...] = ()
    """The first that selects a figure is its rule."""
    budgets: tuple[Budget, ...] = ()
    """Each that selects a figure binds it."""
    metrics: Mapping[str, Metric] = {}
    """What metrics mean that neither the registry nor the results declare, or otherwise."""

    def rule(self, key: Key) -> Rule:
        """Return the rule of a figure."""
        return next((rule for rule in self.rules if rule.selects(key)), self.defaults)

    def terms(self, key: Key, declared: Mapping[str, Metric] | None = None) -> Terms:
        """Return how a figure is judged; `declared`: what its run says of its own metrics."""
        metric = meaning(key.metric, key.unit, self.metrics, declared or {})
        return self.rule(key).terms(metric)


def read(path: Path | None) -> Policy:
    """Return the policy in a YAML file; without one that of ci/policy.yml, or the default.

    Raises InputError `FILE:LINE: key: problem`.
    """
    if path is None and not HERE.exists():
        return Policy()
    return load_yaml(path or HERE, Policy)


def matches(pattern: str, text: str) -> bool:
    """Whether a pattern (see Pattern) fits a text."""
    if _is_regex(pattern):
        return bool(re.search(pattern[1:-1], text))
    return fnmatchcase(text, pattern.replace("[", "[[]"))  # specs have no character classes


def limit(bound: str) -> tuple[str, float]:
    """The operator and the number of a bound. Raises ValueError, which says what was expected."""
    found = re.fullmatch(r"\s*(<=|>=|==|<|>)\s*(\S+)\s*", bound)
    with suppress(ValueError):
        if found and not isnan(number := float(found[2])):
            return found[1], number
    raise ValueError(f"expected a bound such as '<= 0.105', got {bound!r}")


def keeps(value: float, bound: str) -> bool:
    """Whether a value keeps a bound."""
    operator, number = limit(bound)
    return bool(COMPARE[operator](value, number))


def _is_regex(pattern: str) -> bool:
    return len(pattern) > 1 and pattern.startswith("/") and pattern.endswith("/")
