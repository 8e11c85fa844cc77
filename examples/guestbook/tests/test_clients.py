"""A real server, Flask's own client, and Flask-SQLAlchemy's own session."""

import httpx2
import pytest
from flask import Flask
from sqlalchemy.orm import Session

from guestbook.models import Guest, db
from pytest_arena import Arena, LiveServer, TestClient


@pytest.fixture
def dune(db_session: Session) -> None:
    """A guest."""
    db_session.add(Guest(name="Dune"))


def test_a_real_server(live_server: LiveServer, dune: None) -> None:
    """Call the app by a socket, as a browser does."""
    with httpx2.Client(base_url=live_server.url) as guest:
        assert guest.post("/login", json={"name": "Dune"}).status_code == 204
        assert guest.post("/entries", json={"text": "By a socket."}).status_code == 201


def test_flasks_own_client(arena_app: Flask, dune: None, arena: Arena) -> None:
    """Call the app by Flask's client. pytest-arena knows its requests as well."""
    guest = arena_app.test_client()
    assert guest.post("/login", json={"name": "Dune"}).status_code == 204
    assert [request.path for request in arena.requests] == ["/login"]


def test_the_apps_own_session(arena_app: Flask, test_client: TestClient) -> None:
    """Write by Flask-SQLAlchemy's session, which needs an app context."""
    with arena_app.app_context():
        db.session.add(Guest(name="Storm"))
        db.session.commit()
    assert test_client.post("/login", json={"name": "Storm"}).status_code == 204
