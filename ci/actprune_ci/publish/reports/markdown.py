"""The report as Markdown: a job's summary, a pull request's comment, an issue's body."""

from collections.abc import Sequence

from actprune_ci.judge.report import GOOD, Report
from actprune_ci.publish.reports import formatting


def render(report: Report) -> str:
    """The whole report: alerts in full, all figures folded away."""
    lines = [f"## {'✅' if report.code == GOOD else '❌'} {text(formatting.headline(report))}", ""]
    lines += [text(formatting.subject(report)), ""]
    lines += [f"- **broken machine**: {text(reason)}" for reason in report.broken]
    findings = formatting.told(report)
    for told in findings:
        if told.finding.alert:
            lines += alert(told)
    rows = [(*told.row, told.explanation) for told in findings]
    lines += ["", "<details><summary>All figures</summary>", ""]
    lines += [*table((*formatting.HEAD, ""), rows), "", "</details>"]
    if report.environment:
        lines += ["", "Environment, where it differs:", ""]
        lines += table(["", "base", "head"], report.environment)
    lines += ["", *(f"- {text(note.text)}" for note in report.notes)]
    if report.repeat:
        lines += ["", "To confirm:", *code(formatting.command(report, report.repeat))]
    first, *more = formatting.trust(report)
    lines += ["", text(first)]
    if more:
        lines += ["", "<details><summary>What would be found</summary>", ""]
        lines += [*(f"- {text(line)}" for line in more), "", "</details>"]
    return "\n".join(lines) + "\n"


def alert(told: formatting.Told) -> list[str]:
    """One finding in full."""
    finding = told.finding
    lines = [
        "",
        f"### {text(f'{finding.word}: {told.name}')}",
        "",
        text(" · ".join(filter(None, (told.change, told.sides)))),
        "",
        text(f"{finding.severity}: {told.explanation}".removesuffix(": ")),
    ]
    if told.values:
        lines += ["", f"`{formatting.sparkline(told.values)}` {told.trace}"]
    return lines + (code(told.command) if told.command else [])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; the cells of its rows are escaped."""
    lines = [head, ["---"] * len(head), *(list(map(text, row)) for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def code(said: str) -> list[str]:
    """Text as it is, in a block that it cannot end."""
    return ["", "```sh", said.replace("`", "'"), "```"]


def text(plain: str) -> str:
    """Text that Markdown leaves as it is: no mention, no tag, no column of its own."""
    for sign in "\\`*_[]<>|#~":
        plain = plain.replace(sign, f"\\{sign}")
    return " ".join(plain.replace("@", "@\u200b").split())
