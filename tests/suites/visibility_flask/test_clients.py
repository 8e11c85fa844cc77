"""A Flask app: its own client and session, and what it forgets."""

import pytest
from flask_app import Session, app
from models import Order
from sqlalchemy import select


def items(session):
    return list(session.scalars(select(Order.item).order_by(Order.id)))


def test_flasks_own_client(db_session, arena, turn):
    db_session.add(Order(item="vase"))
    with app.test_client() as own:
        assert own.get("/orders").json == ["vase"]
        assert own.post("/orders/chair").status_code == 201
    assert items(db_session) == ["vase", "chair"]
    assert len(arena.requests) == 2


def test_an_answer_is_closed():
    app.test_client().get("/closes")
    assert app.closed


def test_a_stream_is_read_part_by_part(db_session, arena):
    db_session.add(Order(item="vase"))
    with app.test_client().get("/events") as answer:
        assert next(answer.response) == b"vase"
        db_session.add(Order(item="lamp"))
        db_session.commit()
        assert next(answer.response) == b"vase,lamp"
    assert len(arena.requests) == 1


def test_the_apps_own_session():
    with app.app_context():
        Session.add(Order(item="vase"))
        Session.commit()
    assert app.test_client().get("/orders").json == ["vase"]


@pytest.mark.expect("LostWriteWarning", at="Session.add(Order(item=item))")
def test_a_flush_that_the_app_forgot_is_not_seen(test_client):
    test_client.post("/leaves/vase")
    assert test_client.get("/orders").json() == []


@pytest.mark.expect("LeakWarning", at="app.kept = engine.connect()")
def test_a_connection_that_the_app_keeps(test_client, turn):
    assert test_client.post("/keeps").status_code == 200


def test_an_exception_reaches_the_test_where_the_app_is_in_testing(test_client, monkeypatch):
    monkeypatch.setattr(app, "testing", True)
    with pytest.raises(LookupError):
        test_client.post("/breaks")
