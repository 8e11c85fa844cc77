"""An app that uses the test's session: a forgotten commit is not seen, and the summary says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
    result.says("POST /flushed 200 wrote in the test's session (app.py:", NOTE)
    assert result.output.count(NOTE) == 1


@pytest.mark.slow
def test_an_app_that_commits_in_the_test_session_is_not_named(example: Example) -> None:
    """Nor what the test itself has written, a read, or a request that was refused."""
    _in_project(example, COMMITS).run("-q").expect(passed=2).never_says(NOTE)


LOGS = """
from app import app
from fastapi.testclient import TestClient


def test_it():
    client = TestClient(app)
    assert client.post("/logged").status_code == 200
    assert client.get("/items").json() == 1
"""


def test_a_session_that_the_app_leaves_on_a_closed_connection_is_not_named(
    example: Example,
) -> None:
    """SQLAlchemy-Continuum makes such a session for each transaction of the app."""
    _in_project(example, LOGS).run("-q").expect(passed=1).never_says(NOTE)


FLUSHES = """
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import StaticPool, create_engine
from sqlalchemy.orm import Session
from app import Base, Item, app, engine, get_db

STATIC = create_engine(
    "sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool
)


@pytest.fixture(scope="module", params=[engine, STATIC], ids=["file", "memory"])
def session(request):
    Base.metadata.create_all(request.param)
    with Session(request.param) as session:
        yield session


@pytest.fixture(scope="module")
def client(session):
    app.dependency_overrides[get_db] = lambda: session
    yield TestClient(app)
    app.dependency_overrides.clear()


def test_a(client):
    client.post("/committed")
    assert client.get("/items").json() == 1


def test_b(session):
    session.add(Item(name="mine"))
    session.flush()


def test_c(client):
    assert client.get("/items").json() == 0
"""


@pytest.mark.slow
def test_uncommitted_rows_in_a_session_of_a_module_end_with_their_test(example: Example) -> None:
    """pytest-arena rolls them back. An earlier test may have checked the connection out."""
    project = _in_project(example, FLUSHES).with_files(conftest="")
    project.run("-p", "no:randomly").expect(passed=6)
