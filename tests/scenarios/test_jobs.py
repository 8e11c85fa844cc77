"""A scenario of a job that the test calls, without a request: its rows are its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.scenarios.proving import project, told
from tests.scenarios.seen import facts_of

if TYPE_CHECKING:
    from pathlib import Path

JOBS = """
import pytest
from app import Dancer, maker
from sqlalchemy import delete, select

NAMES = select(Dancer.name)


async def purge():
    async with maker() as session:
        await session.execute(delete(Dancer).where(Dancer.name.startswith("Old")))
        await session.commit()


@pytest.mark.scenario("purged")
async def test_purged(db_session):
    db_session.add(Dancer(name="Old Row"))
    await db_session.commit()
    await purge()
    assert (await db_session.scalars(NAMES)).all() == ["Sand"]


@pytest.mark.scenario("nothing to purge")
async def test_nothing_to_purge(db_session):
    await purge()
    assert (await db_session.scalars(NAMES)).all() == ["Sand"]
"""

SENDING = """

def report(text):
    print(text)


def send():
    report("sent")
"""
REPORTED = """
import pytest
from app import Dancer, send

def report(text):
    assert text == "sent"


@pytest.mark.scenario("purged")
def test_by_a_function_that_the_job_calls(arena, monkeypatch):
    with arena.session() as session:
        session.add(Dancer(name="Old Row"))
        session.commit()
    monkeypatch.setattr("app.report", report)
    send()


@pytest.mark.scenario("nothing to purge")
def test_by_a_function_that_the_test_calls(arena):
    with arena.session() as session:
        session.add(Dancer(name="Old Row"))
        session.commit()
    send()
    report("sent")
"""
STEPS = """
Feature: Jobs
  @no-request
  Scenario: purged
    Given an old dancer
    When the job runs
    Then it is gone

  @no-request
  Scenario: nothing to purge
    Given an old dancer
    When the job runs again
    Then it is gone
"""


def test_rows_that_a_job_deletes_were_seeded(tmp_path: Path) -> None:
    """The end of such a test holds none of them. A test that wrote no row stays hollow."""
    example = project(tmp_path, [], JOBS).with_paths({"specs/stories.feature": STEPS})
    found = told(example)
    assert found.statuses == {"purged": "PROVEN", "nothing to purge": "HOLLOW"}, found.run.output
    assert facts_of(found, "purged")["seeded"] == {"dancers": 1}
    assert found.reason("nothing to purge") == "no row was seeded"


def test_no_fault_applies_to_a_test_without_a_request(tmp_path: Path) -> None:
    """The totals do not say that the scenario was tried."""
    example = project(tmp_path, [], JOBS).with_paths({"specs/stories.feature": STEPS})
    found = told(example, "--scenarios-sabotage")
    found.run.says("1 of 2 proven under sabotage too (no fault applies to 1 of them), 1 hollow")


def test_what_the_job_passes_to_a_function_of_the_test_is_of_the_app(tmp_path: Path) -> None:
    """The test passes the same text to it, and that proves nothing."""
    example = project(tmp_path, [], REPORTED).with_paths({"specs/stories.feature": STEPS})
    example = example.change("app.py", "import os", f"import os\n{SENDING}")
    found = told(example)
    assert found.statuses == {"purged": "PROVEN", "nothing to purge": "HOLLOW"}, found.run.output
