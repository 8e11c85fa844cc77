"""The same for plain functions."""

from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_keys.models import ApiKey, Scope
from tests.holders import a_holder


def test_plain_function_with_the_sync_client(test_client: TestClient, db_session: Session) -> None:
    """Scenario: Plain function with the sync client

    Given a key that the test's session has added,
    When the sync client makes another one with it,
    Then the test finds the row.
    """
    admin = a_holder("admin", Scope.KEYS_WRITE)
    db_session.add(admin.key)

    new = {"name": "dashboard", "scopes": ["query"]}
    response = test_client.post("/keys", json=new, headers=admin.headers)

    assert response.status_code == 201
    assert db_session.get_one(ApiKey, response.json()["id"]).name == "dashboard"
