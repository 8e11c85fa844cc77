"""The same for plain functions: Starlette's test client and a synchronous session."""

from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.models import Battle, BattleStatus, Tournament
from tests.factories import a_category, a_tournament, pending_battles
from tests.pages import battle_cards


def test_sync_client_sees_what_the_session_added(
    test_client: TestClient, db_session: Session
) -> None:
    """A tournament that is only flushed, never committed by the test, has its page."""
    tournament = a_tournament(a_category(blazes=["Ruby", "Flow"]), name="Sync Jam")
    db_session.add(tournament)
    db_session.flush()

    response = test_client.get(f"/tournaments/{tournament.id}")

    assert response.status_code == 200
    assert "Ruby" in response.text


def test_session_sees_what_the_sync_client_created(
    test_client_as: Callable[[str], TestClient], db_session: Session
) -> None:
    """A tournament created over HTTP is read by the test's synchronous session."""
    staff = test_client_as("staff")

    response = staff.post("/tournaments/create", data={"name": "Sync Jam"}, follow_redirects=False)

    assert response.status_code == 303
    assert db_session.scalars(select(Tournament.name)).all() == ["Sync Jam"]


def test_sync_client_works_on_a_queue_that_was_there(
    test_client_as: Callable[[str], TestClient], db_session: Session
) -> None:
    """A pre-created battle is started by a logged-in sync client and stands on the floor."""
    category = a_category(performers=4)
    db_session.add(a_tournament(category))
    first, second = pending_battles(category)
    db_session.add_all([first, second])
    db_session.flush()

    command_center = test_client_as("mc").post(f"/battles/{second.id}/start")

    assert second.title in battle_cards(command_center.text)[0]
    assert db_session.get_one(Battle, second.id).status is BattleStatus.ACTIVE
    assert db_session.get_one(Battle, first.id).status is BattleStatus.PENDING
