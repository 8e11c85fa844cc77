"""``db_session`` uses the engine of this test, and not an older one that FastAPI's cache keeps."""

import pytest
from fastapi.testclient import TestClient
from bare_app import app, get_session
from models import Base, Order
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

KEPT = []


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
def test_as_fastapi_has_it(client, db_session, turn):
    db_session.add(Order(item="vase"))
    assert client.get("/orders").json() == ["vase"]


def test_a_list_keeps_the_session_of_a_test_without_db_session(client, session):
    KEPT.append(session)
    assert client.get("/orders").json() == []


@pytest.mark.parametrize("turn", range(3))
def test_a_list_keeps_the_session(client, session, db_session, turn):
    KEPT.append(session)
    db_session.add(Order(item="vase"))
    assert client.get("/orders").json() == ["vase"]
