"""ci/triage.yml: what somebody decided about a change, in strict YAML (docs/nightly.md)."""

import re
from collections.abc import Mapping
from datetime import date as Day
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from actprune_ci.judge.policy import Figures, Pattern, Strict, matches
from actprune_ci.model.documents import Acknowledged
from actprune_ci.model.runs import Key
from actprune_ci.triage.order import Order
from actprune_common.strict_yaml import load_yaml

HERE = Path("ci/triage.yml")
"""Where a repository has its triage."""
COMMIT = re.compile(r"[0-9a-f]{7,64}")
NEEDED: Mapping[str, tuple[set[str], set[str]]] = {
    "expected": ({"change"}, {"change"}),
    "ignore": ({"until"}, {"change", "since", "until"}),
    "baseline": ({"since"}, {"since"}),
}
"""Of each action: the keys that it must have, and those that it may have."""


def _text(given: Any) -> Any:
    if isinstance(given, int | float):  # 1234567 and 12e4567 are numbers to YAML
        raise ValueError(f"expected a commit in quotes, got the number {given}")
    return given


def _commit(text: str) -> str:
    if not COMMIT.fullmatch(text):
        raise ValueError(f"expected 7 or more digits of a commit, in small letters, got {text!r}")
    return text


def _change(text: str) -> str:
    good, dots, bad = text.partition("..")
    for each in (good, bad) if dots else (good,):
        _commit(each)
    return text


def _until(given: Any) -> str:
    if isinstance(given, Day) and not isinstance(given, datetime):
        return given.isoformat()
    text = str(_text(given))
    try:
        return Day.fromisoformat(text).isoformat() if "-" in text else _commit(text)
    except ValueError:
        raise ValueError(f"expected a date (2026-12-24) or a commit, got {text!r}") from None


Commit = Annotated[str, BeforeValidator(_text), AfterValidator(_commit)]
Said = Annotated[str, Field(min_length=1)]


class OnMachines(Figures):
    """Which figures on which machines."""

    benchmark: Pattern
    machine: Pattern = "*"

    def about(self, key: Key, machine: str) -> bool:
        """Whether a figure on a machine is among these."""
        return self.selects(key) and matches(self.machine, machine)


class Entry(OnMachines):
    """One decision: about which figures, which change, what, why, by whom and when."""

    action: Literal["expected", "ignore", "baseline"]
    """expected: fine as it is; ignore: until a day or a commit; baseline: a level begins anew."""
    change: Annotated[str, BeforeValidator(_text), AfterValidator(_change)] = ""
    """The commit that it came with, or GOOD..BAD."""
    since: Commit = ""
    """A baseline begins at this commit; ignored is what came with it or later."""
    until: Annotated[str, BeforeValidator(_until)] = ""
    """The day on which, or the commit with which, an ignored change counts again."""
    reason: Said
    author: Said
    date: Day

    @model_validator(mode="after")
    def _whole(self) -> "Entry":
        must, may = NEEDED[self.action]
        given = {name for name in ("change", "since", "until") if getattr(self, name)}
        if missing := sorted(must - given):
            raise ValueError(f"{self.action}: expected {', '.join(missing)}")
        if more := sorted(given - may):
            raise ValueError(f"{self.action}: expected no {', '.join(more)}")
        if self.action == "ignore" and len(given & {"change", "since"}) != 1:
            raise ValueError("ignore: expected either change or since")
        return self

    def covers(self, good: str, bad: str, order: Order) -> bool:
        """Whether a change after `good`, up to `bad`, can be the one that it is about."""
        if self.since:
            start, last = order.place(self.since), order.place(bad)
            return start is not None and last is not None and last >= start
        return order.overlap(self.change, f"{good}..{bad}")

    def expired(self, order: Order, today: Day | None = None) -> bool:
        """Whether what it ignores counts again."""
        if not self.until:
            return False
        if "-" in self.until:
            return (today or datetime.now(timezone.utc).date()) >= Day.fromisoformat(self.until)
        return order.place(self.until) is not None

    @property
    def told(self) -> Acknowledged:
        """What is shown beside the change."""
        day = self.date.isoformat()
        return Acknowledged(self.action, self.reason, self.author, day, self.until)

    @property
    def name(self) -> str:
        """Which entry it is, for people."""
        where = self.change or self.since
        return f"{self.action} {where[:24]}, {self.benchmark}, {self.metric} ({self.author})"


class Triage(Strict):
    """All that was decided."""

    entries: Annotated[tuple[Entry, ...], BeforeValidator(lambda given: given or ())] = ()


def read(path: Path | None) -> Triage:
    """The triage in a YAML file; without one that of ci/triage.yml, or none.

    Raises InputError `FILE:LINE: key: problem`.
    """
    if path is None and not HERE.exists():
        return Triage()
    return load_yaml(path or HERE, Triage)
