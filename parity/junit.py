"""Results as JUnit XML, which build servers show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from parity.compare import Result
from parity.tables import failure

# XML cannot represent these characters, and a message may contain any text
_UNWRITABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_junit(results: Sequence[Result]) -> bytes:
    """One suite for each group and mode, one test for each case.

    A tensor out of its bound is a ``failure``, an exception in the port is an ``error``.

    >>> as_junit([]).decode().splitlines()[-1]
    '<testsuites tests="0" failures="0" errors="0" time="0.000" />'
    """
    root = ElementTree.Element("testsuites", _counts(results))
    suites: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        suites.setdefault((result.case.group, result.mode), []).append(result)
    for (group, mode), members in suites.items():
        name = f"parity.{group}.{mode}"
        suite = ElementTree.SubElement(root, "testsuite", {"name": name, **_counts(members)})
        for member in members:
            test = ElementTree.SubElement(
                suite,
                "testcase",
                {"classname": name, "name": member.case.name, "time": f"{member.seconds:.3f}"},
            )
            if not member.passed:
                line = _UNWRITABLE.sub("\ufffd", failure(member))
                tag = "error" if member.crash else "failure"
                ElementTree.SubElement(test, tag, {"message": line}).text = line
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _counts(results: Sequence[Result]) -> dict[str, str]:
    crashed = sum(bool(r.crash) for r in results)
    return {
        "tests": str(len(results)),
        "failures": str(sum(not r.passed for r in results) - crashed),
        "errors": str(crashed),
        "time": f"{sum(r.seconds for r in results):.3f}",
    }
