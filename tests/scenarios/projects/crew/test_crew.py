"""Tests of a Flask app by three clients."""

import json
from urllib.request import urlopen

import pytest
from app import Dancer, app
from sqlalchemy import func, select


@pytest.fixture(autouse=True)
def sand(db_session):
    db_session.add(Dancer(name="Sand"))


@pytest.mark.scenario("A dancer joins")
def test_joins(test_client):
    assert test_client.post("/dancers/Kite").status_code == 201
    assert test_client.get("/dancers").json() == ["Sand", "Kite"]


@pytest.mark.scenario("Flask's own client reads")
def test_own_client():
    assert app.test_client().get("/dancers").json == ["Sand"]


@pytest.mark.scenario("A program reads over the network")
def test_live(live_server, db_session):
    db_session.commit()
    with urlopen(f"{live_server.url}/dancers") as answer:
        assert json.load(answer) == ["Sand"]


@pytest.mark.scenario("The row is written")
def test_row(db_session):
    app.test_client().post("/dancers/Kite")
    assert db_session.scalar(select(func.count(Dancer.id))) == 2
