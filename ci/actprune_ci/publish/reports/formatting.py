"""What all reports say, in the same words: figures, effects, sparklines, the repeating command."""

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from math import isfinite

from actprune_ci.judge.report import CODES, Finding, Report
from actprune_common.printable import escape, seen, visible

BARS = "▁▂▃▄▅▆▇█"
MOST_POINTS = 60
TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
LARGE = 1e5
HEAD = ("outcome", "figure", "metric", "change", "base → head")
COMMIT = re.compile("[0-9a-fA-F]{4,64}")
LONGEST = 100_000
"""Characters of a command: Linux takes no argument of 128 KiB."""
READ_BY_SHELLS = "'\"`!\\"


def row(finding: Finding) -> tuple[str, ...]:
    """A finding's cells below HEAD."""
    key = finding.key
    return finding.word, str(key), key.metric, change(finding), sides(finding)


def figure(finding: Finding) -> str:
    """The figure and its metric."""
    return f"{finding.key}, {finding.key.metric}"


def headline(report: Report) -> str:
    """The verdict, how many figures had which outcome, and how many of those asked for any."""
    counts = Counter(finding.word for finding in ordered(report))  # the worst first
    listed = ", ".join(f"{count} {word}" for word, count in counts.items())
    answered, asked = report.judged
    share = f" ({answered} of {asked} judged)"
    return f"{CODES[report.code]}: {listed or 'no figure'}{share if asked else ''}"


def subject(report: Report) -> str:
    """What was compared, and where."""
    sides = f"{report.base[:12] or '?'} → {report.head[:12] or '?'}" if report.base else report.head
    return f"{sides}, {report.machine or 'no machine'}, {report.date or 'no date'}"


def number(value: float, unit: str) -> str:
    """A figure with its unit: whole and large ones with all their digits, others with four."""
    if unit == "s":
        least, name = next((t for t in TIMES if abs(value) >= 0.9995 * t[0]), TIMES[-1])
        return f"{value / least:.4g} {name}" if value else "0 s"
    whole = isfinite(value) and (value == round(value) or abs(value) >= LARGE)
    digits = f"{value:,.0f}" if whole else f"{value:.5g}"
    return digits if unit in ("", "1", "ratio", "unit") else f"{digits} {unit}"


def change(finding: Finding) -> str:
    """The effect with its interval: `+5.20 % [+4.10 %, +6.40 %]`; an exact one as it is."""
    effect = finding.effect
    if effect is None:
        return number(finding.value, finding.key.unit) if finding.value is not None else ""
    if effect.exact:
        digits = "+.6g" if effect.absolute else "+.4%"
        return format(effect.change, digits) if effect.change else "±0"
    texts = [
        ("unbounded" if not isfinite(x) else f"{x:+.4g}" if effect.absolute else f"{x:+.2%}")
        for x in (effect.change, effect.low, effect.high)
    ]
    low, high = texts[1].replace("unbounded", "−∞"), texts[2].replace("unbounded", "∞")
    return f"{texts[0]} [{low}, {high}]"


def sides(finding: Finding) -> str:
    """Base's and head's medians."""
    effect, unit = finding.effect, "" if finding.ratio_to else finding.key.unit
    if effect is None:
        return ""
    return f"{number(effect.base, unit)} → {number(effect.head, unit)}"


def trace(report: Report, finding: Finding) -> tuple[str, tuple[float, ...]]:
    """What a sparkline shows, and its values: the history, else the change pair by pair."""
    history = report.histories.get(finding.key, ())
    if len(history) > 1:
        return f"last {len(history)} runs", history[-MOST_POINTS:]
    if finding.effect and len(finding.effect.changes) > 1:
        return "change, pair by pair", finding.effect.changes[-MOST_POINTS:]
    return "", ()


def sparkline(values: Sequence[float]) -> str:
    """The values as bars of text, the least at the bottom."""
    low, high = min(values, default=0), max(values, default=0)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0
    return "".join(BARS[round((value - low) * scale)] for value in values)


def explanation(finding: Finding) -> str:
    """Why the outcome is what it is, and what the policy says about it."""
    effect = finding.effect
    parts = [
        finding.detail,
        f"budget {finding.bound}" if finding.bound else "",
        f"ratio to {finding.ratio_to}" if finding.ratio_to else "",
        f"noise floor {effect.floor:.2%}" if effect and effect.floor else "",
        "the policy forbids inconclusive" if finding.forbidden else "",
        str(finding.acknowledged or ""),
        finding.reason,
        f"owner: {finding.owner}" if finding.owner else "",
    ]
    return "; ".join(part for part in parts if part)


def acknowledged(report: Report) -> list[str]:
    """A line for each finding that somebody settled: what, why and who."""
    return [
        f"acknowledged: {figure(finding)}: {change(finding)}: {finding.acknowledged}"
        for finding in ordered(report)
        if finding.acknowledged
    ]


def command(report: Report, *benchmarks: str) -> str:
    """What repeats the measurement; nothing without benchmarks, or where `line` has none."""
    if not benchmarks:
        return ""
    return line("ab", report.base, report.head, "--benchmarks", pattern(benchmarks))


def line(verb: str, base: str, head: str, *words: str) -> str:
    """A command on two commits; nothing where a side is no commit: it could be an option."""
    commits = all(map(COMMIT.fullmatch, (base, head)))
    return pasted("actprune-ci", verb, base, head, *words) if commits else ""


def pasted(*words: str) -> str:
    """A command on one line, which every report shows as it is, to be pasted into a shell.

    Quoting is the last thing done to it. Nothing where the line is too long, or where a word holds
    what a reader does not see: he would paste something else than he read.
    """
    made = shlex.join(words)
    return made if len(made) <= LONGEST and visible(made) == made else ""


def pattern(benchmarks: Sequence[str]) -> str:
    r"""A regular expression that fits these benchmarks, with all their parameters.

    What a shell, a terminal or a reader could take for something else stands in it as the
    expression's own escape (`\x27` for a quote, `\n` for a line feed). So any name can be pasted:
    `$'...'` is none of POSIX's, and a name that is refused cannot be measured again.
    """
    return "|".join(f"^{''.join(map(_literal, name))}" for name in benchmarks)


def _literal(character: str) -> str:
    if character in READ_BY_SHELLS or not seen(character):
        return escape(character)
    return re.escape(character)


def trust(report: Report) -> list[str]:
    """How far the gate can be trusted here: false alarms, and what it would find."""
    made = report.calibration
    if made is None:
        return ["Not calibrated: false alarms and the smallest slowdown found are not known."]
    lines = [
        f"Calibrated on {made.machine}, {made.date[:10]}. False alarms between equal commits:"
        f" {made.false_alarms} recorded, {made.simulated} simulated; asv's rule on the same pairs"
        f" {made.asv_rule}, on sides measured in sequence {made.asv_in_sequence}."
    ]
    for benchmark in made.benchmarks:
        sizes = [s for s in benchmark.sizes if s.smallest_found is not None]
        found = ", ".join(f"{s.smallest_found:.1%} with {s.pairs} pairs" for s in sizes)
        name = f"{benchmark.key}, {benchmark.metric}"
        lines.append(f"{name}: slowdown found in 95 of 100: {found or 'none up to a factor of 2'}.")
    return lines


def ordered(report: Report) -> list[Finding]:
    """The findings, those that somebody must act on first."""

    def place(finding: Finding) -> tuple[bool, bool, bool, int, bool, str]:
        changed = finding.outcome in ("faster", "inconclusive", "new")
        severity = ("error", "warning", "info").index(finding.severity)
        settled = finding.acknowledged is not None
        apart = not finding.alert and not settled, not finding.bad, settled
        return *apart, severity, not changed, str(finding.key)

    return sorted(report.findings, key=place)
