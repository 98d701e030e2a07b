"""feed.xml: what is worse, an entry per cause, as Atom (RFC 4287)."""

from collections.abc import Sequence
from uuid import NAMESPACE_URL, uuid5
from xml.etree import ElementTree as Xml

from actprune_ci.publish.dashboard.ledger import Ledger
from actprune_ci.publish.reports.junit import NOT_XML
from actprune_ci.publish.story import Story, levels
from actprune_common.printable import visible

ATOM = "http://www.w3.org/2005/Atom"


def atom(stories: Sequence[Story], ledger: Ledger, branch: str, now: str) -> str:
    """The feed. Identities are those of causes, so that a reader shows each once.

    now: when nothing is told, the date of the feed.
    """
    Xml.register_namespace("", ATOM)
    feed = Xml.Element(f"{{{ATOM}}}feed")
    dates = {each.id: each.updated for each in ledger.causes}
    _add(feed, "title", f"Regressions of {branch}")
    _add(feed, "id", _urn(f"feed {branch}"))
    _add(feed, "updated", max(dates.values(), default=now))
    _add(_add(feed, "author"), "name", "actprune-ci")
    _add(feed, "link", rel="self", href="feed.xml")
    _add(feed, "link", rel="alternate", href="index.html", type="text/html")
    for story in stories:
        entry = _add(feed, "entry")
        _add(entry, "title", f"{story.what}, {story.who}")
        _add(entry, "id", _urn(f"cause {story.cause.id}"))
        _add(entry, "updated", dates[story.cause.id])
        if story.culprit:
            _add(_add(entry, "author"), "name", story.culprit.author or "unknown")
        page = f"index.html#cause-{story.cause.id}"
        _add(entry, "link", rel="alternate", href=page, type="text/html")
        _add(entry, "summary", story.headline, type="text")
        _add(entry, "content", "\n".join(_lines(story)), type="text")
    Xml.indent(feed)
    text = NOT_XML.sub(lambda found: visible(found[0]), Xml.tostring(feed, "unicode"))
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _lines(story: Story) -> list[str]:
    lines = [story.headline, ""]
    for figure in story.cause.figures:
        where = f"{figure.entry.name}, {figure.entry.metric}, on {figure.machine}"
        lines.append(f"{where}: {figure.size} {levels(figure)}".strip())
    return lines


def _urn(name: str) -> str:
    return uuid5(NAMESPACE_URL, f"actprune-ci {name}").urn


def _add(parent: Xml.Element, tag: str, text: str | None = None, **attributes: str) -> Xml.Element:
    made = Xml.SubElement(parent, f"{{{ATOM}}}{tag}", attributes)
    made.text = text if text is None else visible(text) if "\n" not in text else text
    return made
