"""The report as Markdown: a job's summary, a pull request's comment, an issue's body."""

import re
from collections.abc import Sequence

from actprune_ci.judge.report import GOOD, Finding, Report
from actprune_ci.publish.reports import formatting
from actprune_common.printable import visible

BREAK = "\u200b"
LINKED = re.compile(
    r"[@#]"  # a mention; an issue, here or elsewhere
    r"|\bGH-(?=\d)"
    r"|:(?=//|[\w+-]+:)"  # an address; an emoji
    r"|\bwww(?=\.)",
    re.IGNORECASE,
)
"""After these a break keeps GitHub from making a link: escapes do not, it reads what is shown."""
LONGEST = 1000
"""Characters of one text: a comment holds 65,536, which one name must not fill."""
SIGNS = re.compile(r"[\\`*_\[\]<>|#~&$]")
BLOCK = re.compile(r"^(?=[-+] |[-+=][-+= ]*$)|^\d+(?=[.)]( |$))")
"""What would begin a list or underline a heading, were it the first on its line."""


def render(report: Report) -> str:
    """The whole report: alerts in full, all figures folded away."""
    lines = [f"## {'✅' if report.code == GOOD else '❌'} {text(formatting.headline(report))}", ""]
    lines += [text(formatting.subject(report)), ""]
    lines += [f"- **broken machine**: {text(reason)}" for reason in report.broken]
    findings = formatting.ordered(report)
    for finding in findings:
        if finding.alert:
            lines += alert(report, finding)
    lines += ["", *(f"- {text(said)}" for said in formatting.acknowledged(report))]
    rows = [(*formatting.row(each), formatting.explanation(each)) for each in findings]
    lines += folded("All figures", table((*formatting.HEAD, ""), rows))
    if report.environment:
        lines += ["", "Environment, where it differs:", ""]
        lines += table(["", "base", "head"], report.environment)
    lines += ["", *(f"- {text(note.text)}" for note in report.notes)]
    if report.repeat:
        lines += ["", "To confirm:", *code(formatting.command(report, *report.repeat))]
    first, *more = formatting.trust(report)
    lines += ["", text(first)]
    if more:
        lines += folded("What would be found", [f"- {text(line)}" for line in more])
    return "\n".join(lines) + "\n"


def alert(report: Report, finding: Finding) -> list[str]:
    """One finding in full."""
    figures = formatting.change(finding), formatting.sides(finding)
    why = f"{finding.severity}: {formatting.explanation(finding)}".removesuffix(": ")
    lines = ["", f"### {text(f'{finding.word}: {formatting.figure(finding)}')}", ""]
    lines += [text(" · ".join(filter(None, figures))), "", text(why)]
    trace, values = formatting.trace(report, finding)
    if values:
        lines += ["", f"`{formatting.sparkline(values)}` {trace}"]
    command = formatting.command(report, finding.key.benchmark)
    return lines + (code(command) if command else [])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; the cells of its rows are escaped."""
    lines = [head, ["---"] * len(head), *(list(map(text, row)) for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def folded(summary: str, lines: Sequence[str]) -> list[str]:
    """Lines that are shown on demand."""
    return ["", f"<details><summary>{summary}</summary>", "", *lines, "", "</details>"]


def code(said: str) -> list[str]:
    """Lines as they are, in a block that they cannot end; what nobody sees is made visible."""
    lines = [visible(line) for line in said.split("\n")]
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", said))])
    return ["", f"{fence}sh", *lines, fence]


def text(plain: str) -> str:
    """Text that Markdown leaves as it is: no mention, link, tag, formula or column of its own."""
    whole = plain if len(plain) <= LONGEST else f"{plain[:LONGEST]}…"
    shown = SIGNS.sub(r"\\\g<0>", unlinked(whole))
    return BLOCK.sub(r"\g<0>\\", shown)


def unlinked(plain: str) -> str:
    """Text on one line in which GitHub finds no mention, issue, address or emoji: a title."""
    return LINKED.sub(rf"\g<0>{BREAK}", visible(" ".join(plain.split())))
