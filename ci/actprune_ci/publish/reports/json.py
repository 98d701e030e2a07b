"""The report as JSON (schema 1), for programs."""

import json
from dataclasses import asdict
from math import isfinite
from typing import Any

from actprune_ci.judge.report import CODES, Report
from actprune_ci.publish.reports import formatting


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
            "command": formatting.command(report, report.repeat),
        },
        "calibration": report.calibration and report.calibration.model_dump(by_alias=True),
        "findings": [_finding(told) for told in formatting.told(report)],
    }
    return json.dumps(_finite(document), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _finding(told: formatting.Told) -> dict[str, Any]:
    finding = told.finding
    made = asdict(finding)
    key = made.pop("key")
    return {
        "name": str(finding.key),
        **key,
        "params": dict(finding.key.params),
        **made,
        "word": finding.word,
        "fails": finding.fails,
        "alert": finding.alert,
        "trace": {"of": told.trace, "values": told.values},
        "command": told.command,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not isfinite(value) else value
