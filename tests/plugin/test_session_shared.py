"""An app that uses the test's session: a forgotten commit is not seen, and the summary says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

APP = """
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine("sqlite:///dev.db")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def get_db():
    with Session(engine) as session:
        yield session


app = FastAPI()


@app.get("/items")
def items(db: Session = Depends(get_db)) -> int:
    db.execute(text("SELECT 1"))
    return db.scalar(select(func.count(Item.id)))


@app.post("/flushed")
def flushed(db: Session = Depends(get_db)) -> int:
    item = Item(name="Sand")
    db.add(item)
    db.flush()
    return item.id


@app.post("/added")
def added(db: Session = Depends(get_db)) -> None:
    db.add(Item(name="Dune"))


@app.post("/committed")
def committed(db: Session = Depends(get_db)) -> None:
    db.add(Item(name="Rake"))
    db.commit()


@app.post("/logged")
def logged(db: Session = Depends(get_db)) -> None:
    log = Session(db.connection())
    log.add(Item(name="log"))
    log.flush()
    db.commit()


@app.post("/refused")
def refused(db: Session = Depends(get_db)) -> None:
    db.add(Item(name="Rake"))
    db.flush()
    raise HTTPException(409)
"""
CONFTEST = """
import pytest
from app import Item, app, engine, get_db
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session


@pytest.fixture
def shared(db_session):
    db_session.add(Item(name="of the test"))
    app.dependency_overrides[get_db] = lambda: db_session
    yield TestClient(app)
    app.dependency_overrides.clear()


@pytest.fixture
def of_recipe():
    connection = engine.connect()
    transaction = connection.begin()
    session = Session(bind=connection, join_transaction_mode="create_savepoint")
    session.add(Item(name="of the fixture"))
    session.commit()
    app.dependency_overrides[get_db] = lambda: session
    yield TestClient(app)
    app.dependency_overrides.clear()
    session.close()
    transaction.rollback()
    connection.close()


@pytest.fixture
def of_arena(arena):
    with arena.session() as session:
        app.dependency_overrides[get_db] = lambda: session
        yield TestClient(app)
    app.dependency_overrides.clear()
"""
FORGETS = """
import pytest


@pytest.mark.parametrize("path", ["/flushed", "/added"])
@pytest.mark.parametrize("client", ["shared", "of_arena", "of_recipe"])
def test_it(request, client, path):
    client = request.getfixturevalue(client)
    before = client.get("/items").json()
    assert client.post(path).status_code == 200
    assert client.get("/items").json() == before + 1
"""
COMMITS = """
import pytest


@pytest.mark.parametrize("client", ["shared", "of_recipe"])
def test_it(request, client):
    client = request.getfixturevalue(client)
    assert client.post("/committed").status_code == 200
    assert client.get("/items").json() == 2
    assert client.post("/refused").status_code == 409
"""
NOTE = "The app shares the test's session, so this test cannot find a forgotten commit"


def _in_project(example: Example, test: str) -> Example:
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "")
    return project.with_files(app=APP, conftest=CONFTEST, test_it=test)


def test_a_commit_that_the_test_session_makes_for_the_app_is_named_once(example: Example) -> None:
    """Of ``db_session``, of ``arena.session()``, and of a session on the suite's connection."""
    result = _in_project(example, FORGETS).run("-q").expect(passed=6)
    result.says("test_it.py::test_it[shared-/flushed]: the app wrote in the test's session", NOTE)
    assert result.output.count(NOTE) == 1


def test_an_app_that_commits_in_the_test_session_is_not_named(example: Example) -> None:
    """Nor what the test itself has written, a read, or a request that was refused."""
    _in_project(example, COMMITS).run("-q").expect(passed=2).never_says(NOTE)
