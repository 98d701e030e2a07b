"""causes.json: the causes that pages have told, so that each keeps its identity in the feed."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from actprune_ci.model.reading import read
from actprune_ci.publish.causes import Kind, Known
from actprune_ci.publish.story import Story
from actprune_common.files import by_lines


class Entered(BaseModel):
    """A cause, as it was told last."""

    id: str
    good: str
    bad: str
    kind: Kind
    figures: list[str]
    headline: str
    updated: str
    """When that last changed, ISO 8601."""

    @property
    def known(self) -> Known:
        """As a cause that was told before."""
        return Known(self.id, self.good, self.bad, self.kind, frozenset(self.figures))


class Ledger(BaseModel):
    """The causes of causes.json."""

    causes: list[Entered] = []

    @property
    def text(self) -> str:
        """The file (schema 1)."""
        return by_lines({"schema": 1, **self.model_dump()})


def load(path: Path) -> Ledger:
    """The ledger in a file; an empty one where there is none yet."""
    return read(path, Ledger) if path.exists() else Ledger()


def entered(before: Ledger, stories: Sequence[Story], now: str) -> Ledger:
    """The ledger with what is told now; what is told as before keeps its date."""
    known = {each.id: each for each in before.causes}
    made = []
    for story in stories:
        cause, old = story.cause, known.get(story.cause.id)
        same = old is not None and (old.headline, old.good, old.bad) == (
            story.headline,
            cause.good,
            cause.bad,
        )
        made.append(
            Entered(
                id=cause.id,
                good=cause.good,
                bad=cause.bad,
                kind=cause.kind,
                figures=sorted(cause.ids),
                headline=story.headline,
                updated=old.updated if old and same else now,
            )
        )
    return Ledger(causes=made)
