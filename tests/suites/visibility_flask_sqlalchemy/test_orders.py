"""The clients, the app's own session, and a fixture that holds a context for the whole session."""

import pytest
from shop_app import Order, create_app, db, items


def test_a_client_sees_the_rows_of_db_session(test_client, db_session, turn):
    db_session.add(Order(item="vase"))
    assert test_client.get("/orders").json() == ["vase"]
    assert test_client.post("/orders/chair").status_code == 201
    assert db_session.query(Order).count() == 2


def test_a_client_sees_the_rows_of_the_apps_session(arena_app, turn):
    with arena_app.app_context():
        db.session.add(Order(item="vase"))
        db.session.commit()
    assert arena_app.test_client().get("/orders").json == ["vase"]


@pytest.fixture(scope="session")
def app():
    app = create_app()
    with app.app_context():
        yield app


def test_the_context_of_a_session_fixture_has_a_session_for_each_test(app, turn):
    db.session.add(Order(item="vase"))
    db.session.commit()
    assert app.test_client().get("/orders").json == items() == ["vase"]


@pytest.mark.expect("A602", at="db.session.flush()")
def test_a_transaction_that_is_left_open(app):
    db.session.add(Order(item="vase"))
    db.session.flush()


def test_it_has_ended_with_its_test(app):
    assert items() == []


@pytest.fixture(scope="class")
def chair(app):
    chair = Order(item="chair")
    db.session.add(chair)
    db.session.commit()
    return chair


class TestWideSession:
    def test_it_stays(self, chair, turn):
        db.session.refresh(chair)
