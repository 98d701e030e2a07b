"""The report as a table in a terminal."""

import io

from rich.console import Console
from rich.table import Table
from rich.text import Text

from actprune_ci.judge.report import Finding, Report
from actprune_ci.publish.reports import formatting
from actprune_common.printable import printable, visible

COLOURS = {"slower": "red", "over budget": "red", "vanished": "red", "failed": "red"}
COLOURS |= {"faster": "green", "inconclusive": "yellow", "new": "cyan"}


def render(report: Report, width: int = 120, colour: bool = False) -> str:
    """The whole report as text."""
    made = io.StringIO()
    console = Console(
        file=made, width=width, force_terminal=colour, no_color=not colour, emoji=False
    )

    def line(text: str) -> None:
        console.print(Text(visible(text)), soft_wrap=True)

    line(formatting.headline(report))
    line(formatting.subject(report))
    for reason in report.broken:
        line(f"broken machine: {reason}")
    if report.findings:
        console.print(_table(report))
    for finding in formatting.ordered(report):
        if finding.alert:
            for each in _alert(report, finding):
                line(each)
    for text in formatting.acknowledged(report):
        line(text)
    for name, base, head in report.environment:
        line(f"environment: {name}: {base} → {head}")
    for note in report.notes:
        line(f"note: {note.text}")
    if report.repeat:
        line(f"repeat: {formatting.command(report, *report.repeat)}")
    for text in formatting.trust(report):
        line(text)
    text = made.getvalue()
    return text if colour else printable(text)  # folded cells can begin a line


def _table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in (*formatting.HEAD, ""):
        table.add_column(name, overflow="fold")
    for finding in formatting.ordered(report):
        word, *cells = formatting.row(finding)
        colour = COLOURS.get(finding.outcome, "default")
        if finding.outcome in ("skipped", "new"):  # alerts tell theirs in full
            last = visible(finding.detail)
        else:
            last = formatting.sparkline(formatting.trace(report, finding)[1][-20:])
        shown = (Text(visible(cell)) for cell in cells)
        table.add_row(Text(word, colour), *shown, last)
    return table


def _alert(report: Report, finding: Finding) -> list[str]:
    outcome = f"{finding.word} {formatting.change(finding)}"
    first = f"{finding.severity}: {formatting.figure(finding)}: {outcome}"
    trace, values = formatting.trace(report, finding)
    spark = f"{formatting.sparkline(values)} {trace}" if values else ""
    command = formatting.command(report, finding.key.benchmark)
    more = (formatting.explanation(finding), spark, command)
    return [first, *(f"  {line}" for line in more if line)]
