"""A cause as an issue on GitHub: its title, its text, and what is said when it changes."""

from collections.abc import Sequence

from actprune_ci.publish.causes import Told
from actprune_ci.publish.commits import CommitFacts
from actprune_ci.publish.marks import Kept, Mark, mark
from actprune_ci.publish.reports.formatting import number, sparkline
from actprune_ci.publish.reports.markdown import code, folded, table, text, unlinked
from actprune_ci.publish.story import MOST_COMMITS, Story, levels
from actprune_common.printable import visible

FOOT = "Kept by `actprune-ci issues`: updated when it changes, closed when each figure is good."
MOST_ROWS = 30
HEAD = ("figure", "metric", "machine", "change", "before → after", "counts from", "newest values")


def title(story: Story) -> str:
    """The title: the worst figure, and since which commit."""
    first, more = story.cause.figures[0], len(story.cause.figures) - 1
    word = {"vanished": "vanished", "failed": "failed", "over budget": "over budget"}
    named = f"{word.get(first.outcome, 'worse')}: {first.entry.name}, {first.entry.metric}"
    others = f" and {more} more" if more else ""
    return unlinked(named)[:200] + others


def body(story: Story, said: Mark, rest: Sequence[Kept] = ()) -> str:
    """The text: what, since when, by whom, each figure, and how to look at it."""
    lines = [mark(said), "", *_lead(story), "", *_rows(story.cause.figures)]
    if rest:
        names = ", ".join(each.name or "a figure" for each in rest[:5])
        many = f" and {len(rest) - 5} more" if len(rest) > 5 else ""
        lines += ["", f"Not told tonight, and not measured to be good: {text(names)}{many}."]
    if story.repeat:
        lines += ["", "To repeat it:", *code(visible(story.repeat))]
    if story.bisect:
        lines += ["", "To find the commit:", *code(visible(story.bisect))]
    return "\n".join((*lines, "", FOOT)) + "\n"


def comment(story: Story, news: Sequence[str]) -> str:
    """What is said to those who follow an issue."""
    head = f"**{text('; '.join(news))}**"
    return "\n".join((head, "", *_lead(story), "", *_rows(story.cause.figures))) + "\n"


def _lead(story: Story) -> list[str]:
    since = f" since {story.day}" if story.day else ""
    if story.culprit:
        return [f"**{story.what}{since}**, by {_commit(story.culprit)}."]
    ends = text(f"{story.cause.good[:10]}..{story.cause.bad[:10]}")
    ends = f"[{ends}]({story.compare})" if story.compare else ends
    if not story.commits:
        return [f"**{story.what}{since}**, by a commit of {ends}, which are not in this clone."]
    how = "little by little over" if story.cause.kind == "creep" else "by one of"
    lines = [f"**{story.what}{since}**, {how} the {len(story.commits)} commits {ends}:", ""]
    lines += [f"- {_commit(each)}" for each in story.commits[:MOST_COMMITS]]
    more = len(story.commits) - MOST_COMMITS
    return lines + ([f"- and {more} more"] if more > 0 else [])


def _commit(found: CommitFacts) -> str:
    short = found.hash[:10]
    named = f"[{short}]({found.link})" if found.link else short
    return f"{named} {text(found.subject[:120])} ({text(found.author)}, {found.day})"


def _rows(figures: Sequence[Told]) -> list[str]:
    lines = table(HEAD, [_row(figure) for figure in figures[:MOST_ROWS]])
    if len(figures) > MOST_ROWS:
        more = [_row(figure) for figure in figures[MOST_ROWS : 4 * MOST_ROWS]]
        lines += folded(f"{len(figures) - MOST_ROWS} more", table(HEAD, more))
    why = dict.fromkeys(reason for figure in figures[:MOST_ROWS] if (reason := _why(figure)))
    return lines + (["", *(f"- {text(line)}" for line in why)] if why else [])


def _row(figure: Told) -> tuple[str, ...]:
    entry = figure.entry
    threshold = getattr(entry, "threshold", None)
    counts = number(threshold, entry.unit) if threshold is not None else ""
    row = (entry.name, entry.metric, figure.machine, figure.size, levels(figure), counts)
    return *row, sparkline(values(figure)[-30:])


def values(figure: Told) -> list[float]:
    """What a figure's sparkline shows."""
    trace = figure.entry.trace
    return [v for v in (trace if isinstance(trace, list) else trace.values) if v is not None]


def _why(figure: Told) -> str:
    entry = figure.entry
    parts = [getattr(entry, "bound", ""), getattr(entry, "detail", ""), entry.reason]
    parts += [f"owner: {entry.owner}" if entry.owner else ""]
    said = "; ".join(part for part in parts if part)
    return f"{entry.severity}: {said}" if said else ""
