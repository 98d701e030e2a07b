"""A gate's report for whoever reads it: terminal, Markdown, JSON, JUnit XML, an offline page."""

from collections.abc import Callable, Mapping

from actprune_ci.judge.report import Report
from actprune_ci.publish.reports import html, json, junit, markdown, terminal

FORMATS: Mapping[str, tuple[str, Callable[[Report], str]]] = {
    "text": ("gate.txt", terminal.render),
    "markdown": ("gate.md", markdown.render),
    "json": ("gate.json", json.render),
    "junit": ("gate.xml", junit.render),
    "html": ("gate.html", html.render),
}
"""Name of the format: its file, and what makes it."""
