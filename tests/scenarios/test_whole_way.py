"""The whole way of the evidence: from a test, through the processes, into the document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.proving import RERUNS, XDIST, Told, project, told

if TYPE_CHECKING:
    from pathlib import Path

SPEC = """
Feature: Dancers
  Scenario: All are shown
    Given two dancers
    When I GET /dancers
    Then "Dune" is there

  Scenario: Nobody looks
    Given two dancers
    When I GET /dancers
    Then "Dune" is there

  Scenario: Not written yet
    When I GET /dancers
    Then something is there

  Scenario: Not in these blocks
    When I GET /dancers
    Then something is there
"""

TESTS = """
import pytest
from app import Dancer

@pytest.mark.scenario("All are shown")
async def test_shown(db_session, client):
    db_session.add(Dancer(name="Dune"))
    answer = await client.get("/dancers")
    assert answer.json() == ["Sand", "Dune"]

@pytest.mark.scenario("Nobody looks")
async def test_hollow(db_session, client):
    db_session.add(Dancer(name="Dune"))
    await client.get("/dancers")

@pytest.mark.scenario("Not written yet")
async def test_stub(scenario):
    scenario.todo("later")

@pytest.mark.scenario("Not in these blocks")
async def test_blocks(client, scenario):
    with scenario.when("I GET /dancers"):
        answer = await client.get("/dancers")
    with scenario.then("something else is there"):
        assert answer.json()
"""

MODES = {"plain": (), "two workers": (*XDIST, "-n", "2"), "reruns": (*RERUNS, "--reruns", "1")}
PARAMS = [pytest.param(name, marks=pytest.mark.slow if name != "plain" else ()) for name in MODES]


@pytest.fixture(scope="module", params=PARAMS)
def dancers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run in each way; all tests look at it."""
    example = project(tmp_path_factory.mktemp("way"), [], TESTS)
    example = example.with_paths({"specs/stories.feature": SPEC})
    return told(example, "--junit-xml=junit.xml", *MODES[request.param])


def test_a_test_that_does_it_all_proves(dancers: Told) -> None:
    """And one that looks at nothing does not; the reason says what is missing."""
    assert dancers.statuses == {
        "All are shown": "PROVEN",
        "Nobody looks": "HOLLOW",
        "Not written yet": "STUB",
        "Not in these blocks": "FAILED",
    }
    assert "assert" in dancers.reason("Nobody looks")
    assert "something else is there" in dancers.reason("Not in these blocks")
    assert "test_it.py:24" in str(dancers.scenarios["Not in these blocks"])


def test_the_evidence_is_in_the_document_and_in_the_xml(dancers: Told) -> None:
    """What was seeded, requested and asserted, whichever process it was in."""
    shown = str(dancers.scenarios["All are shown"]["evidence"])
    for word in ("dancers", "/dancers", "GET", "200"):
        assert word in shown
    xml = (dancers.run.folder / "junit.xml").read_text(encoding="utf-8")
    case = xml.split('name="test_shown"')[1].split("</testcase>")[0]
    line = (
        'name="arena_evidence" value="seeded: dancers 1; requested: GET /dancers 200; asserted: 1"'
    )
    assert case.count(line) == 1
    assert case.count('name="arena_scenario"') == 1


@pytest.mark.slow
def test_sabotage_comes_from_workers_too(tmp_path: Path) -> None:
    """Each worker breaks its own tests; the document has what became of each."""
    example = project(tmp_path, [], TESTS).with_paths({"specs/stories.feature": SPEC})
    found = told(example, "--scenarios-sabotage", *XDIST, "-n", "2")
    shown = str(found.scenarios["All are shown"])
    assert found.statuses["All are shown"] == "PROVEN"
    assert "noticed" in shown
    assert found.document["is_sabotaged"]


@pytest.mark.slow
def test_assertions_that_nobody_hears_are_unknown(tmp_path: Path) -> None:
    """Never a false green, and never a HOLLOW that is not true."""
    example = project(tmp_path, [], TESTS).with_paths({"specs/stories.feature": SPEC})
    found = told(example, "--assert=plain", "-k", "shown")
    assert found.statuses["All are shown"] == "UNKNOWN"
    assert "--assert=plain" in found.reason("All are shown")
