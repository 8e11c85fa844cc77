"""A sync app: clients and sessions of the suite, threads, and what the app forgets."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from models import Order
from sqlalchemy import text
from starlette.testclient import TestClient
from sync_app import app, engine, maker
from test_each_client import items


def test_a_client_and_a_session_of_the_suite():
    with maker() as session, TestClient(app) as client:
        session.add(Order(item="vase"))
        session.commit()
        client.post("/orders/chair")
        assert client.get("/orders").json() == items(session) == ["vase", "chair"]


def test_requests_of_several_threads_find_what_is_pending(test_client, db_session):
    db_session.add(Order(item="vase"))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: test_client.get("/orders"), range(4)))
    assert [answer.json() for answer in answers] == [["vase"]] * 4


@pytest.mark.expect("LostWriteWarning", at="db.flush()")
def test_a_commit_that_the_app_forgot_is_not_seen(test_client):
    test_client.post("/forgets/vase")
    assert test_client.get("/orders").json() == []


@pytest.mark.skipif(engine.dialect.name == "sqlite", reason="SQLite has no such statements")
@pytest.mark.parametrize("statement", ["CREATE DATABASE a", "CREATE ROLE a", "GRANT a TO b"])
@pytest.mark.expect("A201", at="text(statement)")
def test_a_statement_about_the_server_is_refused(statement):
    with engine.connect() as connection:
        connection.execute(text(statement))
