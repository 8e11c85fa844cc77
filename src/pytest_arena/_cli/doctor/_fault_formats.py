"""Writes faults as text, as JSON, as SARIF 2.1.0, and as workflow commands of GitHub's."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pytest_arena._cli.doctor._rule import RULES
from pytest_arena._cli.doctor._surroundings import find_root

if TYPE_CHECKING:
    from pytest_arena._cli.doctor._rule import Fault, Rule

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_EXAMPLE = "shop.models:Base"  # in the texts of the rules
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})


def as_text(faults: list[Fault]) -> str:
    """A line for each fault, and the next step below the first one of each rule."""
    lines = []
    explained = set()
    for fault in faults:
        lines.append(
            f"{fault.file}:{fault.line}:{fault.column}: {fault.code} {fault.message}"
        )
        if fault.code not in explained:
            lines.append(f"    next: {_step(fault)}")
            explained.add(fault.code)
    return "".join(f"{line}\n" for line in lines)


def _step(fault: Fault) -> str:
    """Return the next step after a fault. The project's module replaces the example in it."""
    step = RULES[fault.code].step
    if _EXAMPLE not in step:
        return step
    return step.replace(
        _EXAMPLE, _schema(find_root(Path(fault.file).absolute().parent))
    )


@cache
def _schema(root: Path) -> str:
    # The command is quick: most calls need no SQLAlchemy, which this module imports.
    from pytest_arena._cli.init._look import likely_schema, look_at  # noqa: PLC0415 - as said

    return likely_schema(look_at(root)) or _EXAMPLE


def as_json(faults: list[Fault]) -> str:
    """A list of objects, in which nothing is shortened but what the message quotes."""
    things = []
    for fault in faults:
        rule = RULES[fault.code]
        thing = asdict(fault)
        page = f"docs/reference/doctor.md#{rule.code.lower()}-{rule.name}"
        fixable = bool(thing.pop("edits"))
        more = {
            "name": rule.name,
            "next": _step(fault),
            "fixable": fixable,
            "page": page,
        }
        things.append(thing | more)
    return _dumped(things)


def as_sarif(faults: list[Fault]) -> str:
    """SARIF 2.1.0, as code scanning takes it."""
    rules = [_sarif_rule(each) for _, each in sorted(RULES.items())]
    driver = {
        "name": "arena doctor",
        "version": version("pytest-arena"),
        "rules": rules,
    }
    results = [_sarif_result(each) for each in faults]
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    return _dumped({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _dumped(thing: Any) -> str:
    return json.dumps(thing, indent=1, ensure_ascii=False) + "\n"


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    texts = (
        ("shortDescription", rule.title),
        ("fullDescription", rule.why),
        ("help", rule.step),
    )
    return {
        "id": rule.code,
        "name": rule.name,
        **{name: {"text": text} for name, text in texts},
    }


def _sarif_result(fault: Fault) -> dict[str, Any]:
    region = {
        "startLine": fault.line,
        "startColumn": fault.column,
        "endLine": fault.end_line,
    }
    file = Path(fault.file)
    uri = file.as_uri() if file.is_absolute() else quote(file.as_posix())
    place = {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}
    result = {
        "ruleId": fault.code,
        "level": "warning",
        "message": {"text": fault.message},
    }
    return {**result, "locations": [place]}


def as_github(faults: list[Fault]) -> str:
    """Workflow commands: GitHub shows each at its line of a pull request."""
    return "".join(
        f"::error file={fault.file.translate(_PROPERTY)},line={fault.line},"
        f"endLine={fault.end_line},col={fault.column},title={fault.code}"
        f"::{fault.message.translate(_DATA)}\n"
        for fault in faults
    )


FORMATS = {"text": as_text, "json": as_json, "sarif": as_sarif, "github": as_github}
