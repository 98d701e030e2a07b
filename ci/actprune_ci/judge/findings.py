"""What the gate found about one figure."""

from dataclasses import dataclass
from typing import Any, Literal

from actprune_ci.judge.policy import Selection, Severity
from actprune_ci.judge.verdict import Effect, Verdict
from actprune_ci.model.runs import Key

Outcome = Verdict | Literal["vanished", "new", "skipped", "failed", "within budget", "over budget"]
BAD = ("slower", "vanished", "failed", "over budget")
NOT_MEASURED = ("vanished", "skipped", "failed")


@dataclass(frozen=True)
class Finding:
    """One figure's outcome, and who has to know."""

    key: Key
    outcome: Outcome
    severity: Severity
    detail: str = ""
    effect: Effect | None = None
    value: float | None = None
    """Of head, where a budget binds it."""
    bound: str = ""
    ratio_to: str = ""
    owner: str = ""
    reason: str = ""
    forbidden: bool = False
    """Inconclusive, where the policy forbids that."""
    unconfirmed: bool = False
    """A change that one more A/B run must confirm."""
    certain: bool = False
    """Needs no clock: an exact figure, or a budget on one."""

    @classmethod
    def under(
        cls,
        selection: Selection,
        key: Key,
        outcome: Outcome,
        detail: str = "",
        effect: Effect | None = None,
        **more: Any,
    ) -> "Finding":
        """A finding of a rule or a budget, and more of its fields."""
        fields = selection.model_dump(include={"severity", "owner", "reason"})
        fields |= {"ratio_to": selection.ratio_to or "", "certain": bool(effect and effect.exact)}
        return cls(key, outcome, detail=detail, effect=effect, **{**fields, **more})

    @property
    def bad(self) -> bool:
        """Whether somebody has to act on it."""
        return self.outcome in BAD

    @property
    def fails(self) -> bool:
        """Whether the gate closes over it."""
        return self.bad and self.severity == "error"

    @property
    def was_measured(self) -> bool:
        """Whether head has this figure."""
        return self.outcome not in NOT_MEASURED

    @property
    def alert(self) -> bool:
        """Whether a report shows it in full."""
        return self.bad or self.forbidden or self.unconfirmed

    @property
    def word(self) -> str:
        """The outcome in words that fit the figure: bytes grow worse, not slower."""
        if self.key.metric == "time":
            return self.outcome
        return {"slower": "worse", "faster": "better"}.get(self.outcome, self.outcome)
