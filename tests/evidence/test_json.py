"""A document as JSON: the shape that others count on, and back again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pytest_arena.errors import ConfigError
from pytest_arena.scenarios.evidence._document import Document, Sabotage, Status, as_json, from_json
from pytest_arena.scenarios.evidence._judge import listed
from pytest_arena.scenarios.specs._specification import Problem, Step
from tests.evidence.samples import (
    BLOCKS,
    POST,
    attempt,
    document,
    facts,
    failure,
    mapping,
    outline,
    scenario,
    specification,
)

TABLE = Step(
    keyword="Given",
    kind="given",
    text="these",
    line=40,
    doc_string="a\n",
    media_type="json",
    table=(("a", "b"), ("1", "2")),
)
PROBLEM = Problem(spec="docs/x.md", line=3, what="expected a step", hint="Given", is_error=False)


def rich() -> Document:
    """A document with something in every place."""
    many = [
        scenario(tags=("@a", "@survives-500")),
        outline("1", "2", name="Rows", line=20),
        scenario("Table", 40, steps=(TABLE,), rule="Only admins", requirement=""),
        scenario("Bare", 50),
    ]
    maps = [mapping(), mapping("r", many[1], row=(("p", "1"),))]
    requests = (POST, replace(POST, status=None, changed=None, read=None, observed=None))
    what = facts(requests=requests, steps=BLOCKS, off=(("read", "no SQLAlchemy"),), seeded=None)
    noticed = (Sabotage(kind="500", result="survived", why="it did"),)
    tries = [attempt(facts=what, sabotages=noticed), failure("r")]
    more = {"partial": "-k start", "problems": [PROBLEM], "is_sabotaged": True}
    return document(tries, maps, of=many, **more)


def test_a_document_is_the_same_after_a_round_trip() -> None:
    """With all that is in it."""
    doc = rich()
    assert from_json(as_json(doc), where="x.json") == doc
    whole = listed(specification(scenario(), problems=(PROBLEM,)))
    assert from_json(as_json(whole), where="x.json") == whole


def test_the_shape_is_the_one_that_others_count_on() -> None:
    """Names and types, with the business rule's id before the Gherkin rule."""
    raw = json.loads(as_json(rich()))
    assert raw["schema"] == 1
    one, _, table, bare = raw["scenarios"]
    names = "name feature rule spec line status reason steps tests evidence"
    assert list(one)[:10] == names.split()
    assert (one["rule"], table["rule"]) == ("BR-1", "Only admins")
    assert (
        one["steps"][0] | {"keyword": "Given", "text": "a battle is pending", "line": 11}
        == (one["steps"][0])
    )
    assert one["tests"][0]["test"] == "tests/test_b.py::test_start"
    assert (bare["status"], bare["tests"], bare["evidence"]) == ("UNMAPPED", [], {})
    assert raw["problems"][0]["what"] == "expected a step"


def test_the_evidence_of_a_proven_scenario_is_summed_up() -> None:
    """What was seeded, requested and asserted, by whichever of its tests."""
    raw = json.loads(as_json(document([attempt()], [mapping()])))
    assert raw["scenarios"][0]["evidence"] == {
        "seeded": {"battles": 1},
        "requested": ["POST /battles/{battle_id}/start 200"],
        "asserted": ["tests/test_b.py:16"],
    }
    assert raw["counts"] == {"PROVEN": 1}


def test_names_that_readers_count_on_are_there_though_empty() -> None:
    """Of a list and of nothing at all."""
    raw = json.loads(as_json(listed(specification(scenario(requirement="")))))
    one = raw["scenarios"][0]
    assert {one[name] for name in ("rule", "reason")} == {""}
    assert set(one["steps"][0]) >= {"keyword", "text", "line"}
    assert json.loads(as_json(Document())) == {
        "schema": 1,
        "scenarios": [],
        "problems": [],
        "counts": {},
    }


def test_one_line_for_each_scenario() -> None:
    """So that two runs can be compared by diff."""
    lines = as_json(rich()).splitlines()
    assert sum(line.startswith('{"name"') for line in lines) == 4


def test_text_that_is_no_text_does_not_break_the_file() -> None:
    """A failure's message may hold half of a surrogate pair."""
    doc = document([failure(reason="\udc80 ü")], [mapping()])
    text = as_json(doc)
    text.encode()
    assert "ü" in text
    assert from_json(text, where="x.json") == doc


def broken(change: Any) -> str:
    """A document with something else in one place."""
    raw = json.loads(as_json(rich()))
    change(raw)
    return json.dumps(raw)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"schema": 1}',
        "[" * 100_000,
        broken(lambda raw: raw["scenarios"][0].pop("key")),
        broken(lambda raw: raw["scenarios"][0].update(status="GREEN")),
        broken(lambda raw: raw["scenarios"][0].update(line="7")),
        broken(lambda raw: raw["scenarios"][0]["steps"].append(7)),
        broken(lambda raw: raw["scenarios"][0]["tests"][0]["facts"].update(requests=[{}])),
        broken(lambda raw: raw.update(problems="none")),
    ],
    ids=range(13),
)
def test_what_is_no_document_is_named(text: str) -> None:
    """With the file, never with a traceback of ours."""
    with pytest.raises(ConfigError, match=r"out/x\.json is not a readable JSON file of scenarios"):
        from_json(text, where="out/x.json")


def test_a_document_of_another_version_is_named() -> None:
    """It may mean something else by the same words."""
    with pytest.raises(ConfigError, match=r"has schema 2, but this pytest-arena reads schema 1"):
        from_json('{"schema": 2}', where="x.json")


def test_every_status_has_its_name() -> None:
    """As it is printed."""
    assert [one.value for one in Status][8] == "NOT-RUN"
