"""Rows of tests, rows of requests, and the database between tests."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from guestbook.models import Entry, Guest
from pytest_arena import Arena, ClientAs, TestClient


@pytest.fixture
def dune(db_session: Session) -> Guest:
    """A guest who has written already."""
    guest = Guest(name="Dune")
    db_session.add(Entry(guest=guest, text="Lovely sand."))
    return guest


def test_an_entry_of_a_fixture_is_seen_by_the_request(test_client: TestClient, dune: Guest) -> None:
    """Nothing was committed by hand."""
    assert test_client.get("/entries").json() == [{"guest": "Dune", "text": "Lovely sand."}]


def test_an_entry_of_a_request_is_seen_by_the_test(
    test_client_as: ClientAs[TestClient], db_session: Session, dune: Guest, arena: Arena
) -> None:
    """And the test knows which request wrote it."""
    guest = test_client_as("Dune")
    response = guest.post("/entries", json={"text": "I came back."})
    assert response.status_code == 201
    assert db_session.scalars(select(Entry.text)).all() == ["Lovely sand.", "I came back."]
    assert arena.changes(response)["entries"].inserted[0].after["text"] == "I came back."


def test_a_name_is_taken_once(test_client: TestClient, dune: Guest) -> None:
    """The constraint is the database's."""
    assert test_client.post("/guests", json={"name": "Dune"}).status_code == 409
    assert test_client.post("/guests", json={"name": "Storm"}).status_code == 201


def test_who_is_not_logged_in_writes_nothing(test_client: TestClient, arena: Arena) -> None:
    """And the guestbook is empty: no other test has left anything."""
    with arena.expect_changes():
        assert test_client.post("/entries", json={"text": "Who am I?"}).status_code == 401
    assert test_client.get("/entries").json() == []
