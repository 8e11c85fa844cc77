"""Writes faults as text, as JSON, as SARIF 2.1.0, and as workflow commands of GitHub's."""

from __future__ import annotations

import json
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pytest_arena._cli.doctor._rule import PAGE, RULES

if TYPE_CHECKING:
    from pytest_arena._cli.doctor._rule import Fault, Rule


def as_text(faults: list[Fault]) -> str:
    """A line for each fault, and the next step below the first one of each rule."""
    lines, explained = [], set()
    for fault in faults:
        lines.append(f"{fault.file}:{fault.line}:{fault.column}: {fault.code} {fault.message}")
        if fault.code not in explained:
            step = " ".join(RULES[fault.code].step.split())
            lines.append(f"    next: {step}")
            explained.add(fault.code)
    return "".join(f"{line}\n" for line in lines)


def as_counts(faults: list[Fault]) -> str:
    """How many faults each rule has found, the most frequent first."""
    counts = Counter(fault.code for fault in faults).most_common()
    return "".join(f"{n:5}  {code}  {RULES[code].title}\n" for code, n in counts)


def as_json(faults: list[Fault]) -> str:
    """A list of objects, in which nothing is shortened but what the message quotes."""
    things = [
        {
            "code": fault.code,
            "name": RULES[fault.code].name,
            "message": fault.message,
            "next": " ".join(RULES[fault.code].step.split()),
            "file": fault.file,
            "line": fault.line,
            "column": fault.column,
            "end_line": fault.end_line,
            "fixable": bool(fault.edits),
            "page": f"{PAGE}#{fault.code.lower()}-{RULES[fault.code].name}",
        }
        for fault in faults
    ]
    return json.dumps(things, indent=1, ensure_ascii=False) + "\n"


def as_sarif(faults: list[Fault]) -> str:
    """SARIF 2.1.0, as code scanning takes it."""
    driver = {
        "name": "arena doctor",
        "version": version("pytest-arena"),
        "rules": [_sarif_rule(each) for _, each in sorted(RULES.items())],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_sarif_result(each) for each in faults],
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    log = {"$schema": schema, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1, ensure_ascii=False) + "\n"


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "help": {"text": rule.step},
    }


def _sarif_result(fault: Fault) -> dict[str, Any]:
    region = {"startLine": fault.line, "startColumn": fault.column, "endLine": fault.end_line}
    file = Path(fault.file)
    uri = file.as_uri() if file.is_absolute() else quote(file.as_posix())
    place = {"artifactLocation": {"uri": uri}, "region": region}
    return {
        "ruleId": fault.code,
        "level": "warning",
        "message": {"text": fault.message},
        "locations": [{"physicalLocation": place}],
    }


def as_github(faults: list[Fault]) -> str:
    """Workflow commands: GitHub shows each at its line of a pull request."""
    return "".join(
        f"::error file={_property(fault.file)},line={fault.line},endLine={fault.end_line},"
        f"col={fault.column},title={fault.code}::{_data(fault.message)}\n"
        for fault in faults
    )


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


FORMATS = {"text": as_text, "json": as_json, "sarif": as_sarif, "github": as_github}
