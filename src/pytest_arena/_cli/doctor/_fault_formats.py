"""Writes faults as text, JSON, SARIF or messages of GitHub."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pytest_arena._cli.doctor._rule import RULES
from pytest_arena._cli.doctor._surroundings import find_root

if TYPE_CHECKING:
    from pytest_arena._cli.doctor._rule import Fault

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_EXAMPLE = "shop.models:Base"  # in the texts of the rules
_PLACEHOLDER = "<module>:<Base>"
# The characters that a workflow command escapes in its message and in its properties.
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})


def as_text(faults: list[Fault]) -> str:
    """Return a line for each fault, and the next step below the first fault of each rule."""
    lines = []
    explained = set()
    for fault in faults:
        place = f"{fault.file}:{fault.line}:{fault.column}"
        lines.append(f"{place}: {fault.code} {fault.message}")
        if fault.code not in explained:
            lines.append(f"    next: {_next_step(fault)}")
            explained.add(fault.code)
    return "".join(f"{line}\n" for line in lines)


def _next_step(fault: Fault) -> str:
    """Return the next step after a fault, with the project's tables in place of the example."""
    step = RULES[fault.code].step
    if _EXAMPLE not in step:
        return step
    folder = Path(fault.file).absolute().parent
    schema = _schema(find_root(folder))
    return step.replace(_EXAMPLE, schema)


@cache
def _schema(root: Path) -> str:
    """Return the likely ``arena_schema`` of a project, or a placeholder if none is likely."""
    from pytest_arena._cli.init._look import likely_schema, parse_project  # noqa: PLC0415 - imports SQLAlchemy

    project = parse_project(root)
    return likely_schema(project) or _PLACEHOLDER


def as_json(faults: list[Fault]) -> str:
    """Return the faults as a JSON list of objects."""
    return _to_json([_json_fault(fault) for fault in faults])


def _json_fault(fault: Fault) -> dict[str, object]:
    rule = RULES[fault.code]
    values = asdict(fault)
    edits = values.pop("edits")
    return {
        **values,
        "name": rule.name,
        "next": _next_step(fault),
        "fixable": bool(edits),
        "page": f"docs/reference/doctor.md#{rule.code.lower()}-{rule.name}",
    }


def as_sarif(faults: list[Fault]) -> str:
    """Return SARIF 2.1.0, which code scanning reads."""
    driver = {
        "name": "arena doctor",
        "version": version("pytest-arena"),
        "rules": [
            {
                "id": code,
                "name": rule.name,
                "shortDescription": {"text": rule.title},
                "fullDescription": {"text": rule.why},
                "help": {"text": rule.step},
            }
            for code, rule in sorted(RULES.items())
        ],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_sarif_result(fault) for fault in faults],
    }
    return _to_json({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _to_json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _sarif_result(fault: Fault) -> dict[str, object]:
    file = Path(fault.file)
    uri = file.as_uri() if file.is_absolute() else quote(file.as_posix())
    region = {
        "startLine": fault.line,
        "startColumn": fault.column,
        "endLine": fault.end_line,
    }
    place = {"artifactLocation": {"uri": uri}, "region": region}
    return {
        "ruleId": fault.code,
        "level": "warning",
        "message": {"text": fault.message},
        "locations": [{"physicalLocation": place}],
    }


def as_github(faults: list[Fault]) -> str:
    """Return workflow commands. GitHub shows each at its line of a pull request."""
    lines = []
    for fault in faults:
        file = fault.file.translate(_PROPERTY)
        place = (
            f"file={file},line={fault.line},endLine={fault.end_line},col={fault.column}"
        )
        message = fault.message.translate(_DATA)
        lines.append(f"::error {place},title={fault.code}::{message}\n")
    return "".join(lines)


FORMATS = {"text": as_text, "json": as_json, "sarif": as_sarif, "github": as_github}
