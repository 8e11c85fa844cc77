"""unittest.mock, freezegun and time-machine: a mock is for the app, and a time for the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

APP = """

import asyncio
import time
from fastapi import HTTPException
from sqlalchemy.exc import OperationalError

tasks = set()


async def add_later(name):
    time.sleep(60)
    await asyncio.sleep(60)
    async with maker.begin() as session:
        session.add(Dancer(name=name))


@app.post("/later/{name}")
async def later(name: str):
    tasks.add(asyncio.create_task(add_later(name)))


@app.put("/dancers/{name}")
async def add_if_up(name: str, db=Depends(get_db)):
    db.add(Dancer(name=name))
    try:
        await db.commit()
    except OperationalError:
        raise HTTPException(503)
"""

TESTS = """
import pytest
from unittest.mock import patch
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from app import Dancer


@pytest.fixture
def no_pause():
    with patch("asyncio.sleep") as sleep, patch("time.sleep"):
        yield sleep


async def test_a_sleep(arena, client, no_pause):
    await client.post("/later/Dune")
    await arena.settled()
    no_pause.assert_awaited_once_with(60)
    assert (await client.get("/dancers")).json() == ["Sand", "Dune"]


async def test_a_commit(db_session, client):
    db_session.add(Dancer(name="Dune"))
    down = OperationalError("COMMIT", {}, Exception("disk full"))
    with patch.object(AsyncSession, "commit", side_effect=down):
        assert (await client.put("/dancers/Storm")).status_code == 503
    assert (await client.get("/dancers")).json() == ["Sand", "Dune"]
"""


def test_a_mock_acts_on_the_app_alone(example: Example) -> None:
    """pytest-arena waits and commits by the real functions."""
    app = example.files["app.py"] + APP
    example.with_files(app=app, test_it=TESTS).run().expect(passed=2).never_says("cut off")


FROZEN = """
import datetime
import pytest
from app import Dancer
{library}

@pytest.fixture(scope="session", autouse=True)
def frozen():
    with {freeze}:
        yield

async def test_async(client, db_session):
    assert datetime.date.today().year == {year}
    assert (await client.get("/dancers")).json() == ["Sand"]
    db_session.add(Dancer(name="Grain"))
    assert (await client.post("/dancers/Dune")).status_code == 201
"""

FREEZE = {
    "freezegun": ("import freezegun", 'freezegun.freeze_time("{}-01-14")'),
    "time-machine": ("import time_machine", 'time_machine.travel("{}-01-14T00:00Z", tick=False)'),
}


@pytest.mark.parametrize("library, year", [("freezegun", "2061"), ("time-machine", "2001")])
def test_a_frozen_clock_is_the_tests_alone(example: Example, library: str, year: str) -> None:
    """Templates are built, found again and kept for as long as they would be; costs are real."""
    head, freeze = FREEZE[library]
    tests = FROZEN.format(library=head, freeze=freeze.format(year), year=year)
    project = example.with_files(test_it=tests)
    project.run().expect(passed=1).says("template built in").never_says(" 0.00 ms")
    project.run().expect(passed=1).says("template built in").never_says("kept for")
