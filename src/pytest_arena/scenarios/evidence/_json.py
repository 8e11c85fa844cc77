"""How is a document written as JSON, and read again?"""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum, EnumMeta
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.evidence import _document
from pytest_arena.scenarios.evidence._claim import checks_at_the_end
from pytest_arena.scenarios.evidence._document import PASSED, Document
from pytest_arena.scenarios.specs import Problem, Row, ScenarioSpec, Step

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from pytest_arena.scenarios.evidence._document import Facts, JudgedScenario

# The shape's version: it is counted up when a name gets another meaning, or goes.
_SCHEMA = 1
# What the modules of values name for the type checker alone.
_NAMES = {**vars(_document), **{kind.__name__: kind for kind in (Problem, Row, ScenarioSpec, Step)}}


def as_json(document: Document) -> str:
    """Return the document as JSON, the same for the same document: one line for each scenario.

    It holds no time, and no path but those in the document, which begin at the root folder. A name
    whose value is the default is left out, but for those that every reader counts on.
    """
    extras = to_shape(document, but=("scenarios", "problems"))
    counts = {status.value: count for status, count in document.counts().items()}
    parts = [
        f'"schema": {_SCHEMA}',
        _array("scenarios", map(_scenario, document.scenarios)),
        _array("problems", ({"spec": "", **to_shape(it)} for it in document.problems)),
        *(f'"{name}": {_line(value)}' for name, value in {"counts": counts, **extras}.items()),
    ]
    # Half of a surrogate pair, from a failure's message, is no text: as an escape JSON can hold it.
    return ("{" + ",\n".join(parts) + "}\n").encode(errors="backslashreplace").decode()


def from_json(text: str, *, where: str) -> Document:
    """Read what `as_json` wrote.

    Args:
        text: the JSON.
        where: the file, for messages.

    Raises:
        ScenarioError: it is no such document, or one of another version.
    """
    fix = f"write it anew: pytest --scenarios-out=json:{where}"
    try:
        raw = json.loads(text.removeprefix("\ufeff"))
        schema = raw["schema"]
        if schema == _SCHEMA:
            # What was said of the scenario and of the verdict in one object, as two.
            raw["scenarios"] = [
                {**it, "scenario": {**it, "rule": it["gherkin_rule"]}} for it in raw["scenarios"]
            ]
            document: Document = from_shape(Document, raw)
            return document
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ScenarioError(
            f"{where} does not hold scenarios as JSON",
            why="verdicts that are not read in full would be other verdicts",
            cause=f"{type(error).__name__}: {error}",
            fix=fix,
        ) from error
    raise ScenarioError(
        f"{where} is of schema {schema!r}, and this version of pytest-arena reads {_SCHEMA}",
        why="the same names may mean something else there",
        cause="it was written by another version of pytest-arena",
        fix=fix,
    )


_line = json.JSONEncoder(ensure_ascii=False).encode


def _array(name: str, values: Iterable[object]) -> str:
    lines = ",\n".join(map(_line, values))
    return f'"{name}": [\n{lines}\n]' if lines else f'"{name}": []'


def _scenario(judged: JudgedScenario) -> dict[str, Any]:
    """The scenario and its verdict in one object: what every reader counts on comes first."""
    scenario = judged.scenario
    steps = []
    for number, step in enumerate(scenario.steps):
        verdict = judged.steps[number] if judged.steps else None
        shown = to_shape(verdict) if verdict and verdict.status else {}
        steps.append(to_shape(step) | shown)
    first = {
        "name": scenario.name,
        "feature": scenario.feature,
        "rule": scenario.requirement or scenario.rule,
        "spec": scenario.spec,
        "line": scenario.line,
        "status": judged.status.value,
        "reason": judged.reason,
        "steps": steps,
        "tests": [
            {"test": "", "place": "", "status": "", "reason": "", **to_shape(it)}
            for it in judged.tests
        ],
        "evidence": _evidence(
            [it.facts for it in judged.tests if it.facts and it.status in PASSED]
        ),
        "gherkin_rule": scenario.rule,
    }
    rest = to_shape(scenario, but=("steps", *first))
    return first | rest | to_shape(judged, but=("scenario", *first))


def _evidence(passed: list[Facts]) -> dict[str, Any]:
    """What the tests that passed did together, for readers: it is not read again."""
    if not passed:
        return {}
    requests = [request for facts in passed for request in facts.requests]
    seeded: dict[str, int] = {}
    for table, count in (pair for facts in passed for pair in facts.seeded or ()):
        seeded[table] = max(count, seeded.get(table, 0))
    return {
        "seeded": dict(sorted(seeded.items())),
        "requested": sorted({f"{it.method} {it.route or it.path} {it.status}" for it in requests}),
        "asserted": sorted({it.place for facts in passed for it in checks_at_the_end(facts)}),
    }


def to_shape(value: Any, *, but: Container[str] = ()) -> dict[str, Any]:
    """Return a dataclass as what JSON can hold; fields that have their default are left out.

    Pairs of a name and something become an object, other tuples an array.

    Args:
        value: of whichever frozen class of this room or of the specifications.
        but: names of fields that are left out.
    """
    kind: Any = type(value)
    return {
        name: _written(hint, held)
        for name, hint, default in _fields(kind)
        if (held := getattr(value, name)) is not default and held != default and name not in but
    }


def from_shape(kind: Any, raw: Any) -> Any:
    """Return the value of a dataclass again.

    Raises:
        KeyError, TypeError, ValueError: it is not of this shape.
    """
    raw = _checked(raw, dict)
    return kind(
        **{
            name: _read(hint, raw[name])
            for name, hint, default in _fields(kind)
            if default is MISSING or name in raw
        }
    )


@cache
def _fields(kind: Any) -> tuple[tuple[str, Any, object], ...]:
    hints = get_type_hints(kind, localns=_NAMES)
    return tuple((it.name, hints[it.name], it.default) for it in fields(kind))


def _written(hint: Any, value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return to_shape(value)
    if isinstance(value, tuple):
        # Of what a tuple holds, or one that may be None.
        inner = get_args(hint)[0] if get_origin(hint) is tuple else get_args(get_args(hint)[0])[0]
        return dict(value) if _is_pair(inner) else [_written(inner, it) for it in value]
    return value.value if isinstance(value, Enum) else value


def _read(hint: Any, raw: Any) -> Any:
    arguments = get_args(hint)
    if NoneType in arguments:
        return None if raw is None else _read(arguments[0], raw)
    if get_origin(hint) is tuple:
        return _read_tuple(arguments[0], raw)
    if get_origin(hint) is Literal:
        return arguments[arguments.index(raw)]
    if isinstance(hint, EnumMeta):
        return hint(raw)
    return from_shape(hint, raw) if is_dataclass(hint) else _checked(raw, hint)


def _read_tuple(inner: Any, raw: Any) -> Any:
    if not _is_pair(inner):
        return tuple(_read(inner, it) for it in _checked(raw, list))
    kind = get_args(inner)[1]
    return tuple((name, _checked(it, kind)) for name, it in _checked(raw, dict).items())


@cache
def _is_pair(hint: Any) -> bool:
    return get_origin(hint) is tuple and get_args(hint)[-1] is not ...


def _checked(raw: Any, kind: type) -> Any:
    if type(raw) is not kind:
        raise TypeError(f"{kind.__name__} expected, not {raw!r:.40}")
    return raw
