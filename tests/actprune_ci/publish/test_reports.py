"""Each report holds what its reader needs, and hostile names break none of them."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from actprune_ci.judge.gate import gate
from actprune_ci.judge.policy import Budget, Policy, Rule
from actprune_ci.judge.report import Report
from actprune_ci.model.runs import Key, Note, Pairs
from actprune_ci.publish.reports import FORMATS, formatting, html, markdown, terminal
from tests.actprune_ci.judge.test_gate import BYTES, TIME, calibrated, exact, run, timed, twice

HOSTILE = Key("suite.<script>alert(1)</script>", (("p", "a|b`c`\x00 @all ]]> & [x](http://e)"),))


@pytest.fixture(scope="module")
def report() -> Report:
    policy = Policy(
        defaults=Rule(owner="kernels", reason="speed"),
        budgets=(Budget(metric="saved_bytes", bound="<= 5"),),
    )
    gone = Pairs(HOSTILE, (), (), "skipped", "vanished")
    runs = [run(*ab.pairs, exact(BYTES, 10, 11), gone, hour=i) for i, ab in enumerate(twice(0.06))]
    made = gate(policy, runs, (), calibrated())
    return replace(made, histories={TIME: (0.01, 0.01, 0.011)})


@pytest.mark.parametrize("name", ["text", "markdown", "json", "html"])
def test_every_alert_is_whole(report: Report, name: str) -> None:
    page = FORMATS[name][1](report).replace("\\_", "_").replace("\\", "")
    for part in ("slower", "worse", "vanished", "over budget"):
        assert part in page
    assert TIME.benchmark in page
    assert re.search(r"\+6\.\d\d%|0\.06\d", page), "the effect"
    assert re.search(r"\[\+5\.\d\d%, \+\d\.\d\d%|\"low\": 0\.05", page), "its interval"
    assert "2.13.1" in page, "the environment's difference"
    assert "EPYC" not in page, "what both sides share"
    assert "actprune-ci ab aaaa bbbb --benchmarks" in page.replace("&#39;", "'")
    assert "0 of 2000" in page or '"trials": 2000' in page, "the false alarms"
    assert "5.0% with 100 pairs" in page or '"smallest_found": 0.05' in page
    assert {"html": "<polyline", "json": '"values": ['}.get(
        name, "▁▁█ last 3 runs"
    ) in page.replace("`", "")


def test_alerts_come_first_and_errors_before_warnings(report: Report) -> None:
    alerts = [f.alert for f in formatting.ordered(report)]
    assert alerts == sorted(alerts, reverse=True)
    assert formatting.headline(report).startswith("regression: ")


def test_hostile_names_stay_text(report: Report) -> None:
    page = html.render(report)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    comment = re.sub(r"(?s)```sh\n[^`]*\n```", "", markdown.render(report))  # code is inert
    assert "<script>" not in comment.replace("\\<", "")
    assert "@all" not in comment
    table = next(line for line in comment.splitlines() if "alert(1)" in line and line[0] == "|")
    assert len(re.findall(r"(?<!\\)\|", table)) == 7
    suites = Xml.fromstring(FORMATS["junit"][1](report))
    assert any("<script>" in str(case.get("name")) for case in suites.iter("testcase"))
    assert HOSTILE.benchmark in terminal.render(report, width=400)


def test_junit_counts(report: Report) -> None:
    suite = Xml.fromstring(FORMATS["junit"][1](report))[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "4", "0")
    broken = gate(Policy(), [replace(run(timed()), notes=(Note("clock-jumped", "clock jumped"),))])
    suite = Xml.fromstring(FORMATS["junit"][1](broken))[0]
    assert suite.get("errors") == "1"
    empty = Xml.fromstring(FORMATS["junit"][1](gate(Policy(), [run()])))[0]
    assert empty[0].get("name") == "no figure was measured"


def test_json_is_strict_and_whole(report: Report) -> None:
    few = gate(Policy(), [run(timed(pairs=3))])  # its interval is infinite

    def refuse(name: str) -> None:
        raise AssertionError(name)

    document = json.loads(FORMATS["json"][1](few), parse_constant=refuse)
    assert document["findings"][0]["effect"]["low"] == -1  # a ratio of zero
    assert document["findings"][0]["effect"]["high"] is None
    assert document["notes"][0]["code"] == "no-calibration"
    document = json.loads(FORMATS["json"][1](report))
    assert (document["schema"], document["code"], document["verdict"]) == (1, 1, "regression")
    assert {"effect", "command", "trace", "owner", "reason"} <= set(document["findings"][0])


def test_reports_without_calibration_say_so() -> None:
    for name, (_, render) in FORMATS.items():
        page = render(gate(Policy(), twice(0)))
        assert "ot calibrated" in page or (name == "json" and '"calibration": null' in page)


def test_a_page_for_nothing_at_all() -> None:
    empty = gate(Policy(), [])
    for _, render in FORMATS.values():
        assert "no data" in render(empty) or "no figure was measured" in render(empty)


def test_sparkline_and_figures() -> None:
    assert formatting.sparkline([0, 1, 2, 7]) == "▁▂▃█"
    assert formatting.sparkline([3, 3]) == "▁▁"
    assert formatting.sparkline([]) == ""
    assert formatting.number(0.0123456, "s") == "12.35 ms"
    assert formatting.number(1234567, "bytes") == "1,234,567 bytes"
    assert formatting.number(0.105, "ratio") == "0.105"


def test_the_page_asks_nothing_of_the_network(report: Report) -> None:
    page = html.render(report)
    for asking in ("<script", '<link rel="style', "@import", "<img", "url("):
        assert asking not in page
    assert "default-src 'none'" in page


@pytest.mark.browser
def test_the_page_draws_in_a_browser(report: Report, chromium: str, tmp_path: Path) -> None:
    (tmp_path / "gate.html").write_text(html.render(report), "utf-8")
    words_ = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        [*words_, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "gate.html").as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.count("<polyline") == 4  # two figures, as alerts and in the table
    assert "refused" not in done.stderr.lower()
