"""Calls as a JUnit report, for continuous integration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from ivr.ops.simcarrier.record import CallRecord, Ended


def write(path: Path, calls: Sequence[tuple[CallRecord, Sequence[str]]]) -> None:
    """One test case a call, with its problems as the failure."""
    failures = sum(bool(problems) for _, problems in calls)
    suite = ElementTree.Element("testsuite", name="ivr call", tests=str(len(calls)), failures=str(failures), errors="0")
    for record, problems in calls:
        seconds = sum(ended.at_s for ended in record.of(Ended))
        case = ElementTree.SubElement(
            suite, "testcase", classname="ivr.call", name=record.scenario, time=f"{seconds:.1f}"
        )
        if problems:
            failure = ElementTree.SubElement(case, "failure", message=problems[0])
            failure.text = "\n".join(problems)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)
