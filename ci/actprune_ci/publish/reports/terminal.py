"""The report as a table in a terminal."""

import io

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from actprune_ci.judge.findings import Finding
from actprune_ci.judge.gate import Report
from actprune_ci.publish.reports import formatting

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

    line(formatting.headline(report))
    line(formatting.subject(report))
    for reason in report.broken:
        line(f"broken machine: {reason}")
    if report.findings:
        console.print(_table(report))
    for finding in formatting.ordered(report):
        if finding.alert:
            line("\n".join(_alert(report, finding)))
    for name, base, head in report.environment:
        line(f"environment: {name}: {base} → {head}")
    for note in report.notes:
        line(f"note: {note.text}")
    if report.repeat:
        line(f"repeat: {formatting.command(report, report.repeat)}")
    for text in formatting.trust(report):
        line(text)


def _table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("outcome", "figure", "metric", "change", "base → head", ""):
        table.add_column(name, overflow="fold")
    for finding in formatting.ordered(report):
        row = (
            str(finding.key),
            finding.key.metric,
            formatting.change(finding),
            formatting.sides(finding),
        )
        spark = formatting.sparkline(formatting.trace(report, finding)[1][-20:])
        colour = COLOURS.get(finding.outcome, "default")
        table.add_row(f"[{colour}]{finding.word}[/]", *map(escape, row), spark)
    return table


def _alert(report: Report, finding: Finding) -> list[str]:
    what, values = formatting.trace(report, finding)
    lines = [
        f"{finding.severity}: {finding.key}, {finding.key.metric}: {finding.word}"
        f" {formatting.change(finding)}",
        formatting.explanation(finding),
        f"{formatting.sparkline(values)} {what}" if values else "",
        formatting.command(report, [finding.key.benchmark]),
    ]
    return [lines[0], *(f"  {line}" for line in lines[1:] if line)]
