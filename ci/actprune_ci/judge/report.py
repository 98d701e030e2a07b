"""What the gate found about each figure, and its verdict, which is an exit code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from actprune_ci.judge.calibration_record import Calibration
from actprune_ci.judge.policy import Selection, Severity
from actprune_ci.judge.verdict import Effect, Verdict
from actprune_ci.model.documents import Acknowledged
from actprune_ci.model.metrics import Direction
from actprune_ci.model.runs import Key, Note

Outcome = Verdict | Literal["vanished", "new", "skipped", "failed", "within budget", "over budget"]
MOST_FIGURES = 30
"""That one command names."""
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
    suspicious: bool = False
    """Not proven, but far beyond the scatter of its pairs, and for the worse."""
    doubtful: bool = False
    """Inconclusive, and a change for the worse is not out of the question."""
    asked: bool = False
    """Whether the policy wants an answer for this figure."""
    direction: Direction = "lower"
    acknowledged: Acknowledged | None = None
    """Who settled it, and why: it is shown, and counts no more."""

    @classmethod
    def under(
        cls, selection: Selection, key: Key, outcome: Outcome, detail: str = "", **more: Any
    ) -> "Finding":
        """A finding of a rule or a budget, and more of its fields."""
        fields = selection.model_dump(include={"severity", "owner", "reason"})
        return cls(key, outcome, **fields, detail=detail, ratio_to=selection.ratio_to or "", **more)

    @property
    def bad(self) -> bool:
        """Whether somebody has to act on it."""
        return self.outcome in BAD

    @property
    def fails(self) -> bool:
        """Whether the gate closes over it."""
        return self.bad and self.severity == "error" and self.acknowledged is None

    @property
    def unsettled(self) -> bool:
        """Whether a change for the worse, of severity error, waits for more measurements."""
        worse = self.suspicious or (self.unconfirmed and self.doubtful)
        return worse and self.severity == "error" and self.acknowledged is None

    @property
    def answered(self) -> bool:
        """Whether it is known that the figure became worse, or that it did not."""
        return self.bad or (self.effect is not None and not self.doubtful)

    @property
    def was_measured(self) -> bool:
        """Whether head has this figure."""
        return self.outcome not in NOT_MEASURED

    @property
    def alert(self) -> bool:
        """Whether a report shows it in full."""
        if self.acknowledged:
            return False
        return self.bad or self.forbidden or self.unconfirmed or self.suspicious

    @property
    def word(self) -> str:
        """The outcome in words that fit the figure: bytes grow worse, not slower."""
        settled = ", acknowledged" if self.acknowledged and self.bad else ""
        return f"{self._plain}{settled}"

    @property
    def _plain(self) -> str:
        if self.suspicious:
            return "suspicious"
        if self.key.metric == "time":
            return self.outcome
        return {"slower": "worse", "faster": "better"}.get(self.outcome, self.outcome)


GOOD, REGRESSION, NO_DATA, INCONCLUSIVE, BROKEN = 0, 1, 3, 4, 5
CODES = {
    GOOD: "good",
    REGRESSION: "regression",
    NO_DATA: "no data",
    INCONCLUSIVE: "inconclusive",
    BROKEN: "broken machine",
}


def exit_code(
    findings: Sequence[Finding],
    broken: Sequence[str],
    sentinels: bool,
    judged: tuple[int, int] = (0, 0),
    least: float = 0.0,
) -> int:
    """The exit code: what does not depend on the clock counts on a broken machine too.

    `sentinels`: whether A/B runs of equal commits measured anything.
    `judged`: how many figures have an answer, of how many that the policy asks for; `least`: the
    share of them that must have one.
    """
    failing = [f for f in findings if f.fails]
    if broken:
        return REGRESSION if any(f.certain for f in failing) else BROKEN
    if not any(f.was_measured for f in findings) and not (sentinels and not findings):
        return NO_DATA
    if failing:
        return REGRESSION
    unsettled = any((f.forbidden and not f.acknowledged) or f.unsettled for f in findings)
    return INCONCLUSIVE if unsettled or judged[0] < least * judged[1] else GOOD


@dataclass(frozen=True)
class Report:
    """All that the gate has to say."""

    code: int
    base: str
    head: str
    machine: str
    date: str
    findings: tuple[Finding, ...]
    broken: tuple[str, ...] = ()
    """Why the machine is not believed."""
    notes: tuple[Note, ...] = ()
    environment: tuple[tuple[str, str, str], ...] = ()
    """(fact, of base, of head) where they differ."""
    calibration: Calibration | None = None
    judged: tuple[int, int] = (0, 0)
    """How many compared figures have an answer, of how many that the policy asks for."""
    histories: Mapping[Key, tuple[float, ...]] = field(default_factory=dict)
    """Medians of earlier runs on this machine, oldest first."""

    @property
    def repeat(self) -> tuple[str, ...]:
        """Figures whose change must be seen in one more A/B run before it counts.

        With those that they are ratios to; where they are many, whole benchmarks.
        """
        keys = [f.key for f in self.findings if f.unconfirmed]
        over = [f.key.of_spec(f.ratio_to) for f in self.findings if f.unconfirmed and f.ratio_to]
        figures = tuple(dict.fromkeys(map(str, (*keys, *over))))
        few = len(figures) <= MOST_FIGURES
        return figures if few else tuple(dict.fromkeys(key.benchmark for key in keys))
