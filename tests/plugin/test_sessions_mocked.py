"""A mock of SQLAlchemy's sessions is for the app: pytest-arena's calls do not reach it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

APP = """
from fastapi import HTTPException
from sqlalchemy.exc import OperationalError

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
from unittest.mock import DEFAULT, patch
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from app import Dancer

DOWN = OperationalError("COMMIT", {}, Exception("disk full"))
# An AsyncSession commits by a Session, and a commit flushes.
methods = pytest.mark.parametrize(
    ("kind", "name"), [(AsyncSession, "commit"), (Session, "commit"), (Session, "flush")]
)

def test_that_builds_the_template(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]

@methods
async def test_the_app_answers(db_session, client, kind, name):
    db_session.add(Dancer(name="Dune"))
    with patch.object(kind, name, side_effect=DOWN):
        assert (await client.put("/dancers/Storm")).status_code == 503
    assert (await client.get("/dancers")).json() == ["Sand", "Dune"]

@methods
def test_the_app_answers_a_sync_client(db_session, test_client, kind, name):
    db_session.add(Dancer(name="Dune"))
    with patch.object(kind, name, side_effect=DOWN):
        assert test_client.put("/dancers/Storm").status_code == 503
    assert test_client.get("/dancers").json() == ["Sand", "Dune"]

@methods
async def test_the_app_calls_it_once(db_session, client, kind, name):
    db_session.add(Dancer(name="Dune"))
    method = getattr(kind, name)
    with patch.object(kind, name, autospec=True, side_effect=method) as spy:
        assert (await client.put("/dancers/Storm")).status_code == 200
    assert spy.call_count == 1

@pytest.mark.parametrize("name", ["commit", "flush"])
async def test_calls_of_the_test_are_mocked(db_session, name):
    db_session.add(Dancer(name="Dune"))
    with patch.object(Session, name, side_effect=DOWN), pytest.raises(OperationalError):
        await getattr(db_session, name)()

@pytest.fixture
def mocked():
    with patch.multiple(Session, close=DEFAULT, rollback=DEFAULT) as mocks:
        for mock in mocks.values():
            mock.side_effect = DOWN
        yield

async def test_the_end_is_not_mocked(mocked, db_session):
    db_session.add(Dancer(name="Dune"))
    await db_session.flush()

def test_the_end_of_a_sync_test_is_not_mocked(mocked, db_session):
    db_session.add(Dancer(name="Dune"))
    db_session.flush()
"""


@pytest.mark.slow
def test_a_mock_of_a_session_acts_on_the_app(example: Example) -> None:
    """A mocked commit was pytest-arena's commit before the request, which never reached the app."""
    app = example.files["app.py"] + APP

    run = example.with_files(app=app, test_it=TESTS).run()
    run.expect(passed=14)
