"""The report as JUnit XML: a test case per figure, for CI systems that show tests."""

import re
from xml.etree import ElementTree as Xml

from actprune_ci.judge.report import NO_DATA, Finding, Report
from actprune_ci.publish.reports import formatting
from actprune_common.printable import visible

NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold."""


def render(report: Report) -> str:
    """The whole report: failures are what closes the gate, errors are of the machine."""
    suites = Xml.Element("testsuites")
    suite = Xml.SubElement(suites, "testsuite", name="actprune-ci gate")
    for finding in formatting.ordered(report):
        _add(suite, report, finding)
    for problem in (*report.broken, *(["no figure was measured"] * (report.code == NO_DATA))):
        case = Xml.SubElement(suite, "testcase", classname="machine", name=problem)
        Xml.SubElement(case, "error", message=problem)
    suite.set("tests", str(len(suite)))
    for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(kind, str(len(suite.findall(f"./testcase/{tag}"))))
    Xml.SubElement(suite, "system-out").text = "\n".join(formatting.trust(report))
    Xml.indent(suites)
    text = NOT_XML.sub(lambda found: visible(found[0]), Xml.tostring(suites, "unicode"))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _add(suite: Xml.Element, report: Report, finding: Finding) -> None:
    name = formatting.figure(finding) + (f" {finding.bound}" if finding.bound else "")
    case = Xml.SubElement(suite, "testcase", classname=finding.key.benchmark, name=name)
    message = f"{finding.word} {formatting.change(finding)}".strip()
    if finding.fails or finding.forbidden:
        command = formatting.command(report, finding.key.benchmark)
        text = f"{formatting.explanation(finding)}\n{command}"
        Xml.SubElement(case, "failure", message=message).text = text
    elif not finding.was_measured:
        Xml.SubElement(case, "skipped", message=f"{message}: {finding.detail}")
    else:
        Xml.SubElement(case, "system-out").text = message
