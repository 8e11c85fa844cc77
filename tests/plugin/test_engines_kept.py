"""An engine in memory for each test, which a framework's cache keeps: no test pays for others'."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

CONFIG = """
[pytest]
asyncio_default_fixture_loop_scope = function
filterwarnings = error
pythonpath = .
"""

# As FastAPI's documentation and SQLModel's have it. FastAPI keeps an override for good, and with
# it what its closure holds: a session and an engine for each test.
APP = """
from fastapi import Depends, FastAPI
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

class Base(DeclarativeBase):
    pass

class Hero(Base):
    __tablename__ = "heroes"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

def get_session():
    raise NotImplementedError

app = FastAPI()

@app.get("/heroes")
def heroes(session: Session = Depends(get_session)):
    return [hero.name for hero in session.scalars(select(Hero))]
"""

TEST = """
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool
from app import Base, Hero, app, get_session

@pytest.fixture
def session():
    options = {"check_same_thread": False}
    engine = create_engine("sqlite://", connect_args=options, poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session

@pytest.fixture
def client(session):
    app.dependency_overrides[get_session] = lambda: session
    yield TestClient(app)
    app.dependency_overrides.clear()

@pytest.mark.parametrize("turn", range(3))
def test_heroes(client, session, turn):
    session.add(Hero(name="Deadpond"))
    session.commit()
    assert client.get("/heroes").json() == ["Deadpond"]
"""

KEPT = """
import pytest

kept = []

@pytest.fixture(autouse=True)
def keeps(session):
    kept.append(session)
"""

SEEN = (
    TEST.partition("@pytest.mark.parametrize")[0]
    + """
@pytest.mark.parametrize("turn", range(3))
def test_heroes(client, db_session, turn):
    db_session.add(Hero(name="Deadpond"))
    assert client.get("/heroes").json() == ["Deadpond"]
"""
)


@pytest.mark.parametrize("conftest", [KEPT, ""], ids=["kept", "as FastAPI has it"])
def test_the_first_one_is_each_tests_own_pitfall_099(example: Example, conftest: str) -> None:
    """P1: `db_session` means the engine of this test, and not the first one that is still there."""
    files = {"pytest.ini": CONFIG, "app.py": APP, "test_it.py": SEEN}
    replace(example, files={**files, "conftest.py": conftest}, env={}).run().expect(passed=3)
