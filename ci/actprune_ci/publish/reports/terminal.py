"""The report as a table in a terminal."""

import io

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from actprune_ci.judge.findings import Finding
from actprune_ci.judge.gate import Report
from actprune_ci.publish.reports import formatting as words

COLOURS = {"slower": "red", "over budget": "red", "vanished": "red", "failed": "red"}
COLOURS |= {"faster": "green", "inconclusive": "yellow", "new": "cyan"}


def render(report: Report, width: int = 120, colour: bool = False) -> str:
    """The whole report as text."""
    made = io.StringIO()
    console = Console(file=made, width=width, force_terminal=colour, no_color=not colour)
    show(report, console)
    return made.getvalue()


def show(report: Report, console: Console) -> None:
    """Print the report."""

    def line(text: str) -> None:
        console.print(escape(text), highlight=False, soft_wrap=True)

    line(words.headline(report))
    line(words.subject(report))
    for reason in report.broken:
        line(f"broken machine: {reason}")
    if report.findings:
        console.print(_table(report))
    for finding in words.ordered(report):
        if finding.alert:
            line("\n".join(_alert(report, finding)))
    for name, base, head in report.environment:
        line(f"environment: {name}: {base} → {head}")
    for note in report.notes:
        line(f"note: {note}")
    if report.repeat:
        line(f"repeat: {words.command(report, report.repeat)}")
    for text in words.trust(report):
        line(text)


def _table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("outcome", "figure", "metric", "change", "base → head", ""):
        table.add_column(name, overflow="fold")
    for finding in words.ordered(report):
        row = (str(finding.key), finding.key.metric, words.change(finding), words.sides(finding))
        spark = words.sparkline(words.trace(report, finding)[1][-20:])
        colour = COLOURS.get(finding.outcome, "default")
        table.add_row(f"[{colour}]{finding.word}[/]", *map(escape, row), spark)
    return table


def _alert(report: Report, finding: Finding) -> list[str]:
    what, values = words.trace(report, finding)
    lines = [
        f"{finding.severity}: {finding.key}, {finding.key.metric}: {finding.word}"
        f" {words.change(finding)}",
        words.explanation(finding),
        f"{words.sparkline(values)} {what}" if values else "",
        words.command(report, [finding.key.benchmark]),
    ]
    return [lines[0], *(f"  {line}" for line in lines[1:] if line)]
