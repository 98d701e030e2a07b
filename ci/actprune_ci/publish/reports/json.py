"""The report as JSON (schema 1), for programs."""

import json
import re
from dataclasses import asdict
from typing import Any

from actprune_ci.judge.report import CODES, Finding, Report
from actprune_ci.publish.reports import formatting
from actprune_common.files import finite


def render(report: Report) -> str:
    """The whole report; what is not finite is null."""
    document = {
        "schema": 1,
        "code": report.code,
        "verdict": CODES[report.code],
        **{name: getattr(report, name) for name in ("base", "head", "machine", "date")},
        "broken": report.broken,
        "notes": [asdict(note) for note in report.notes],
        "environment": [
            dict(zip(("name", "base", "head"), e, strict=True)) for e in report.environment
        ],
        "repeat": {
            "benchmarks": report.repeat,
            "command": formatting.command(report, *report.repeat),
        },
        "calibration": report.calibration and report.calibration.model_dump(by_alias=True),
        "findings": [_finding(report, each) for each in formatting.ordered(report)],
    }
    text = json.dumps(finite(document), ensure_ascii=False, indent=1, allow_nan=False)
    return re.sub("[\ud800-\udfff]", lambda lone: f"\\u{ord(lone[0]):04x}", text) + "\n"


def _finding(report: Report, finding: Finding) -> dict[str, Any]:
    made = asdict(finding)
    key, trace = made.pop("key"), formatting.trace(report, finding)
    return {
        "name": str(finding.key),
        **key,
        "params": dict(finding.key.params),
        **made,
        "word": finding.word,
        "fails": finding.fails,
        "alert": finding.alert,
        "trace": dict(zip(("of", "values"), trace, strict=True)),
        "command": formatting.command(report, finding.key.benchmark),
    }
