"""Write the facts of a run of pytest as lines of JSON: a plugin of the inner run.

It imports nothing of pytest-arena. The first line has the tests that pytest has collected. A line
follows for each phase of each test, and one for the end of the session.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

_CODE = re.compile(r"(?m)(?<=\[)A\d{3}(?=\])|^\w+Warning(?=: )")
_PLACE = re.compile(r"([\w/.-]+\.py):(\d+)")
_ended: set[str] = set()  # the tests that have run
# SQLAlchemy adds it, with its own version.
_ADDRESS = re.compile(r" \(Background on this error at: [^)]+\)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "expect(error, at=…): the test fails with this error")
    config.addinivalue_line("markers", "finds(*warnings): the test passes with just these warnings")


@pytest.fixture(params=[1, 2])
def turn(request: pytest.FixtureRequest) -> int:
    """Run the story twice: the second test begins as the first one."""
    return int(request.param)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # after pytest-arena has changed the report
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.nodeid in _ended:  # a replay, which pytest does not report
        return report
    if report.when == "teardown":
        _ended.add(item.nodeid)
    marker = item.get_closest_marker("expect")
    facts: dict[str, Any] = {
        "test": report.nodeid,
        "phase": report.when,
        "outcome": "xfailed" if hasattr(report, "wasxfail") else report.outcome,
        "expected": [*marker.args, marker.kwargs.get("at", "")] if marker else None,
        "text": report.longreprtext,
    }
    finds = item.get_closest_marker("finds")
    if finds is not None:
        facts["finds"] = [*finds.args]
    if report.outcome == "skipped":
        facts["text"] = str(call.excinfo.value) if call.excinfo else ""
    elif report.outcome == "failed" or call.excinfo is not None:
        message = report.longreprtext  # of an error that the app has swallowed
        crash = None
        facts["error"] = message.partition(":")[0]
        if call.excinfo is not None:
            with suppress(TypeError):  # an error without a text
                message = str(call.excinfo.value)
            crash = getattr(report.longrepr, "reprcrash", None)
            facts["error"] = call.excinfo.typename
        facts["codes"] = _CODE.findall(message)
        facts["lines"] = [_line(path, int(number)) for path, number in _PLACE.findall(message)]
        if crash is not None:
            facts["lines"].append(_line(crash.path, crash.lineno))
        facts["story"] = _ADDRESS.sub("", _PLACE.sub(r"\1:N", "\n".join(_sections(report))))
    _write(facts)
    return report


def pytest_warning_recorded(warning_message: Any, nodeid: str) -> None:
    _write({"test": nodeid, "warning": warning_message.category.__name__})


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _write({"broken": report.nodeid, "text": report.longreprtext})


def pytest_collection_finish(session: pytest.Session) -> None:
    _write({"collected": [item.nodeid for item in session.items]})


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(exitstatus: int) -> None:
    _write({"status": int(exitstatus)})


def _sections(report: pytest.TestReport) -> list[str]:
    """Return what pytest-arena adds to a report. Of a traceback, this is the title."""
    of_traceback = getattr(report.longrepr, "sections", [])
    return [
        title if "traceback" in title else text
        for title, text, *_ in [*of_traceback, *report.sections]
        if title.startswith("arena")
    ]


def _line(path: str, number: int) -> str:
    file = Path(path)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return f"{file.name}: {lines[number - 1].strip()}" if number <= len(lines) else ""


def _write(facts: dict[str, Any]) -> None:
    with Path(os.environ["SUITE_FACTS"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(facts) + "\n")
