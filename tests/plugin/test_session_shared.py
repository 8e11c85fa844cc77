"""An app that uses the test's session: a forgotten commit is not seen, and the summary says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

APP = """
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine("sqlite:///dev.db")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str | None]


def get_db():
    with Session(engine) as session:
        yield session


app = FastAPI()


@app.get("/items")
def items(db: Session = Depends(get_db)) -> int:
    return db.scalar(select(func.count(Item.id)))


@app.post("/{end}")
def add(end: str, db: Session = Depends(get_db)) -> None:
    if end == "changed":
        db.scalars(select(Item)).first().note = "new"
        return
    db.add(Item())
    if end == "committed":
        db.commit()
    elif end == "refused":
        db.flush()
        raise HTTPException(409)
"""
TEST = """
import os

import pytest
from app import Item, app, engine, get_db
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
    session.add(Item())
    session.commit()
    app.dependency_overrides[get_db] = lambda: session
    client = TestClient(app)
    for end in os.environ["ENDS"].split():
        assert client.post(f"/{end}").status_code == (409 if end == "refused" else 200)
        assert client.get("/items").json() >= 1
"""
NOTE = "The app shares the test's session, so this test cannot find a forgotten commit"


@pytest.mark.parametrize(
    "ends, count", [("added added", 1), ("changed", 1), ("committed refused", 0)]
)
def test_a_commit_that_the_app_forgot_in_the_tests_session_is_named_once(
    example: Example, ends: str, count: int
) -> None:
    """A commit by the app, and a request that was refused, are not named."""
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "")
    project = project.with_files(app=APP, test_it=TEST)
    result = project.run("-q", env={"ENDS": ends}).expect(passed=2)
    assert result.output.count(NOTE) == count, result.output
