"""A change of a figure in a history: what it means under a policy, and between which commits."""

from dataclasses import asdict, dataclass
from typing import Any

from actprune_ci.history.changes import Change
from actprune_ci.history.series import HistoryFigure
from actprune_ci.history.states import Standing
from actprune_ci.judge.policy import Severity, Terms
from actprune_ci.model.documents import Acknowledged


@dataclass(frozen=True)
class HistoryFinding:
    """One change of one figure, with the commits that it lies between."""

    figure: HistoryFigure
    change: Change
    good: str
    """The last commit that surely has the old level."""
    bad: str
    """The first commit that surely has the new one."""
    regression: bool
    """Whether it is a change for the worse; never so for a figure without a direction."""
    lasting: bool
    """Whether the newest level is still nearer to the new one than to the old one, or beyond it."""
    terms: Terms
    superseded: bool = False
    """Whether a newer version of the benchmark, or a new baseline, took the figure's place."""
    column: int = 0
    """Of the figure in the history."""
    acknowledged: Acknowledged | None = None
    """Who settled it, and why: it is shown, and counts no more."""

    @property
    def range(self) -> str:
        """The commits among which the change is, as git rev-list takes them."""
        return f"{self.good}..{self.bad}"

    @property
    def severity(self) -> Severity:
        """How much the policy minds."""
        return self.terms.rule.severity

    @property
    def verdict(self) -> str:
        """What the change means, in a word or two."""
        if self.terms.direction == "none":
            return "changed"
        if not self.regression:
            return "better"
        if self.superseded:
            return "was worse, until the benchmark or its baseline changed"
        return "worse" if self.lasting else "was worse for a time"

    @property
    def size(self) -> str:
        """How large the change is, for people: relative where both levels are above zero."""
        change = self.change
        if self.terms.smallest_change is None and min(change.before, change.after) > 0:
            return f"{change.effect:+.4%}" if change.kind == "exact" else f"{change.effect:+.2%}"
        return f"{change.after - change.before:+.6g}"

    @property
    def standing(self) -> Standing:
        """How sure it is: confirmed, suspected, passing, shared by all figures of the machine."""
        return self.change.standing

    @property
    def threshold(self) -> float:
        """The level from which on a change from the old level counts."""
        sign = 1 if self.change.after > self.change.before else -1
        before, least = self.change.before, self.terms.smallest_change
        if least is not None or before <= 0:
            return before + sign * (least or 0.0)
        return float(before * (1 + self.terms.smallest_effect) ** sign)

    @property
    def document(self) -> dict[str, Any]:
        """For JSON."""
        rule = self.terms.rule
        figure = asdict(self.figure)
        figure.pop("declared")
        return {
            **figure,
            **asdict(self.change),
            "effect": self.change.effect,
            "size": self.size,
            "good": self.good,
            "bad": self.bad,
            "range": self.range,
            "regression": self.regression,
            "lasting": self.lasting,
            "superseded": self.superseded,
            "verdict": self.verdict,
            "direction": self.terms.direction,
            "severity": rule.severity,
            "owner": rule.owner,
            "reason": rule.reason,
            "threshold": self.threshold,
            "standing": self.standing,
            "acknowledged": self.acknowledged and asdict(self.acknowledged),
        }
