"""An app that uses the test's session: a forgotten commit is not seen, and the summary says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import shop

if TYPE_CHECKING:
    from tests.example import Example

PAGE = """
@app.post("/{end}")
def add(end: str, db=Depends(get_db)) -> None:
    if end == "changed":
        db.scalars(select(Order)).first().note = "new"
        return
    db.add(Order(item="vase"))
    if end == "committed":
        db.commit()
    elif end == "refused":
        db.flush()
        raise HTTPException(409)
"""
TEST = """
import os

import pytest
from app import Order, app, engine, get_db
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session


@pytest.fixture
def of_recipe():
    with engine.connect() as connection, connection.begin() as transaction:
        with Session(bind=connection, join_transaction_mode="create_savepoint") as session:
            yield session
        transaction.rollback()


@pytest.mark.parametrize("name", ["db_session", "of_recipe"])
def test_it(request, name):
    session = request.getfixturevalue(name)
    session.add(Order(item="vase"))
    session.commit()
    app.dependency_overrides[get_db] = lambda: session
    client = TestClient(app)
    for end in os.environ["ENDS"].split():
        assert client.post(f"/{end}").status_code == (409 if end == "refused" else 200)
        assert client.get("/orders").json()
"""
NOTE = "The app shares the test's session, so this test cannot find a forgotten commit"


@pytest.mark.parametrize(
    "ends, count", [("added added", 1), ("changed", 1), ("committed refused", 0)]
)
def test_a_commit_that_the_app_forgot_in_the_tests_session_is_named_once(
    example: Example, ends: str, count: int
) -> None:
    """A commit by the app, and a request that was refused, are not named."""
    project = shop(example, "sync_app", page=PAGE, test_it=TEST)
    result = project.run("-q", env={"ENDS": ends}).expect(passed=2)
    assert result.output.count(NOTE) == count, result.output
