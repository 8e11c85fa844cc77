"""Each test has an app with an engine, whose connections end with the test."""

import pytest
from sqlalchemy import text

COUNT = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
KEPT = []


@pytest.mark.parametrize("turn", range(25))
def test_an_app_that_a_list_keeps(test_client, arena_app, db_session, turn):
    KEPT.append(arena_app)
    assert test_client.post("/orders/chair").status_code == 201
    assert test_client.get("/orders").json() == ["chair"]
    assert db_session.scalar(text(COUNT)) < 12
