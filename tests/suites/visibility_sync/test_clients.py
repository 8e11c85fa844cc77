"""A sync app: clients and sessions of the suite, threads, and what the app forgets."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from models import Order
from sqlalchemy import text
from sync_app import engine


def test_requests_of_several_threads_find_what_is_pending(test_client, db_session):
    db_session.add(Order(item="vase"))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: test_client.get("/orders"), range(4)))
    assert [answer.json() for answer in answers] == [["vase"]] * 4


def test_a_session_that_holds_a_lock_is_committed_first(test_client, db_session, arena):
    db_session.add(Order(item="vase"))
    with arena.session() as other:
        other.add(Order(item="lamp"))
        other.flush()
        assert test_client.get("/orders").json() == ["lamp", "vase"]


@pytest.mark.skipif(engine.dialect.name == "sqlite", reason="SQLite has no such statements")
@pytest.mark.parametrize("statement", ["CREATE DATABASE a", "CREATE ROLE a", "GRANT a TO b"])
@pytest.mark.expect("A201", at="text(statement)")
def test_a_statement_about_the_server_is_refused(statement):
    with engine.connect() as connection:
        connection.execute(text(statement))
