"""A suite whose hook makes the tables before the first test, by an engine that it then disposes of.

So frameworks' own plugins do it: the app's engine is another one, on the developer's file.
"""

__all__ = ["FILES", "TESTS"]

APP = """
from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine("sqlite:///development.db")


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


def get_session():
    with Session(engine) as session:
        yield session


app = FastAPI()


@app.post("/notes/{text}")
def add(text: str, session: Session = Depends(get_session)):
    session.add(Note(text=text))
    session.commit()


@app.get("/notes")
def notes(session: Session = Depends(get_session)):
    return list(session.scalars(select(Note.text)))
"""

CONFTEST = """
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, delete
from sqlalchemy.orm import Session
from app import Base, Note, app, get_session

engine = create_engine("sqlite:///suite.db")


def pytest_collection_finish(session):
    Base.metadata.create_all(engine)
    engine.dispose()


@pytest.fixture
def session():
    with Session(engine) as session:
        yield session
        session.execute(delete(Note))
        session.commit()


@pytest.fixture
def client(session):
    app.dependency_overrides[get_session] = lambda: session
    yield TestClient(app)
    app.dependency_overrides.clear()
"""

TEST = """
import pytest


@pytest.mark.parametrize("text", ["rake", "sand"])
def test_note(client, text):
    client.post(f"/notes/{text}")
    assert client.get("/notes").json() == [text]
"""

FILES = {"app.py": APP, "conftest.py": CONFTEST, "test_notes.py": TEST}
TESTS = 2
