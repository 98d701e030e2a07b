"""The report as JUnit XML: a test case per figure, for CI systems that show tests."""

import re
from xml.etree import ElementTree as Xml

from actprune_ci.judge.report import NO_DATA, Report
from actprune_ci.publish.reports import formatting

NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Report) -> str:
    """The whole report: failures are what closes the gate, errors are of the machine."""
    cases = [_case(told) for told in formatting.told(report)]
    problems = [*report.broken, *(["no figure was measured"] if report.code == NO_DATA else [])]
    cases += [_problem(problem) for problem in problems]
    suite = Xml.Element("testsuite", name="actprune-ci gate", tests=str(len(cases)))
    suite.extend(cases)
    for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(kind, str(len(suite.findall(f"./testcase/{tag}"))))
    Xml.SubElement(suite, "system-out").text = _clean("\n".join(formatting.trust(report)))
    suites = Xml.Element("testsuites")
    suites.append(suite)
    Xml.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(suites, "unicode") + "\n"


def _case(told: formatting.Told) -> Xml.Element:
    finding = told.finding
    name = f"{told.name}{f' {finding.bound}' if finding.bound else ''}"
    case = Xml.Element("testcase", classname=_clean(finding.key.benchmark), name=_clean(name))
    message = f"{finding.word} {told.change}".strip()
    if finding.fails or finding.forbidden:
        text = f"{told.explanation}\n{told.command}"
        Xml.SubElement(case, "failure", message=_clean(message)).text = _clean(text)
    elif not finding.was_measured:
        Xml.SubElement(case, "skipped", message=_clean(f"{message}: {finding.detail}"))
    else:
        Xml.SubElement(case, "system-out").text = _clean(message)
    return case


def _problem(problem: str) -> Xml.Element:
    case = Xml.Element("testcase", classname="machine", name=_clean(problem))
    Xml.SubElement(case, "error", message=_clean(problem))
    return case


def _clean(text: str) -> str:
    """Text without what XML 1.0 cannot hold."""
    return NOT_XML.sub("?", text)
