"""A night's summary, the verdict first: for a terminal, and as Markdown for a job's page."""

from collections.abc import Sequence
from pathlib import Path

from actprune_ci.judge.report import CODES, GOOD
from actprune_ci.nightly.config import Night
from actprune_ci.nightly.night import steps_of
from actprune_ci.nightly.state import NightState
from actprune_ci.publish.reports.markdown import code, folded, table, text

GPU = "{clock_mhz} MHz, {celsius} °C, {watts} W, slowed by {slowed_by}"
LARGEST = 900_000
"""Bytes; GitHub refuses a job's summary of more than a megabyte."""


def headline(state: NightState) -> str:
    """The verdict, in one line."""
    sides = f"{state.base[:10]} → {state.commit[:10]}" if state.base else state.commit[:10]
    return f"{state.verdict or 'not over'}: {sides}, machine {state.machine}, {state.began}"


def terminal(night: Night, state: NightState, folder: Path) -> str:
    """The whole summary as text."""
    lines = [headline(state)]
    for name, status, seconds, why in _rows(night, state):
        lines.append(f"  {status:<8} {name:<16} {seconds:>7}  {why}".rstrip())
    failed = [done for _, done in steps_of(night, state) if done.tail]
    for done in failed:
        last = [line for line in done.tail.splitlines() if line.strip()][-3:]
        lines += [f"{folder / done.log}:", *(f"    {line}" for line in last)]
    return "\n".join([*lines, *(f"note: {note}" for note in state.notes)]) + "\n"


def markdown(night: Night, state: NightState, folder: Path) -> str:
    """The summary as Markdown, the gate's report under it."""
    lines = [f"# {'✅' if state.code == GOOD else '❌'} {text(headline(state))}", ""]
    lines += table(["step", "", "time", ""], _rows(night, state))
    lines += [f"- {text(note)}" for note in state.notes]
    for each, done in steps_of(night, state):
        if done.tail:
            lines += folded(each.name, code(done.tail)[1:])
    lines += _machine(night, state)
    made = "\n".join(lines) + "\n"
    for report in (folder / "gate/gate.md", folder / "budgets/gate.md"):
        if report.is_file():
            room = max(LARGEST - len(made.encode()), 0)
            made += "\n" + report.read_bytes()[:room].decode("utf-8", "ignore")
            break
    return made


def _machine(night: Night, state: NightState) -> Sequence[str]:
    """Clocks, throttling and load after each step that ran."""
    rows = []
    for each, done in steps_of(night, state):
        if now := done.after:
            mhz = " to ".join(f"{each:g}" for each in now.get("mhz", ()))
            gpus = "; ".join(map(GPU.format_map, now.get("gpus", ())))
            rows.append([each.name, f"{now.get('load', '')}", mhz, gpus])
    head = ["step", "load", "CPU, MHz", "GPU"]
    return folded("The machine after each step", table(head, rows)) if rows else []


def _rows(night: Night, state: NightState) -> list[list[str]]:
    """A row per step: its name, what became of it, how long that took, and why."""
    rows = []
    for each, done in steps_of(night, state):
        status = "warning" if (done.status, each.failure) == ("failed", "warning") else done.status
        verdict = CODES.get(done.code or 0, "") if each.verdict and done.status == "ok" else ""
        seconds = f"{done.seconds:.0f} s" if done.attempts else ""
        why = "; ".join(filter(None, (verdict, done.reason, *done.notes)))
        rows.append([each.name, status, seconds, why])
    return rows
