"""The policy: what counts as a regression, in strict YAML (docs/gate.md lists every key)."""

import re
from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from math import isnan
from operator import eq, ge, gt, le, lt
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from actprune_ci.model.runs import Code, Key
from actprune_common.strict_yaml import load_yaml

Direction = Literal["lower", "higher"]
Severity = Literal["error", "warning", "info"]

HIGHER_IS_BETTER = {"accuracy", "accuracy_delta", "grad_cosine", "throughput"}
MEASURED = {"memory", "peak_memory", "measured_peak"}
"""Metrics in bytes that vary from run to run; all others in bytes repeat exactly."""
DETERMINISTIC = {
    *("registers", "spills", "instructions", "nnz", "nbytes_ratio", "saved_ratio"),
    *("predicted_peak", "accuracy", "accuracy_delta"),
}
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


class Selection(Strict):
    """Which figures a rule or a budget is about, and who answers for it."""

    benchmark: Pattern = "*"
    params: Mapping[str, Pattern] = {}
    metric: Pattern = "*"
    ratio_to: str | None = None
    """A spec: the figure is taken over that of this spec, same run, other parameters equal."""
    severity: Severity = "error"
    owner: str = ""
    reason: str = ""
    forbid_inconclusive: bool = False

    def selects(self, key: Key) -> bool:
        """Whether a figure is among these."""
        values = dict(key.params)
        return (
            matches(self.benchmark, key.benchmark)
            and matches(self.metric, key.metric)
            and all(k in values and matches(p, values[k]) for k, p in self.params.items())
        )


class Rule(Selection):
    """How head is compared with base."""

    direction: Direction | None = None
    """Which way is better; where it is not said, by the metric: accuracies up, all others down."""
    smallest_effect: Positive = 0.02
    """The smallest relative change that matters."""
    smallest_change: float | None = Field(None, ge=0, allow_inf_nan=False)
    """In its place: the smallest absolute change that matters, in the figure's unit."""
    exact: bool | None = None
    """Compared without statistics; where it is not said, by the metric and its unit."""

    def better(self, key: Key) -> Direction:
        """Which way is better for a figure."""
        return self.direction or ("higher" if key.metric in HIGHER_IS_BETTER else "lower")

    def is_exact(self, key: Key) -> bool:
        """Whether the smallest change of a figure is real."""
        if self.exact is not None or self.ratio_to:
            return bool(self.exact)
        by_unit = key.unit == "bytes" and key.metric not in MEASURED
        return by_unit or key.metric in DETERMINISTIC or key.benchmark.startswith("static.")


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

    def rule(self, key: Key) -> Rule:
        """The rule of a figure."""
        return next((rule for rule in self.rules if rule.selects(key)), self.defaults)


def read(path: Path) -> Policy:
    """The policy in a YAML file. Raises InputError `FILE:LINE: key: problem`."""
    return load_yaml(path, Policy)


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
