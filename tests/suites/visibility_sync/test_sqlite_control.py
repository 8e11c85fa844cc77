"""SQLite's transactions as SQLAlchemy's documentation and the driver offer to control them."""

import sqlite3
import sys

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sync_app import engine as plain

pytestmark = pytest.mark.skipif(plain.dialect.name != "sqlite", reason="SQLite's driver alone")
recipe = create_engine(plain.url)
engines = [plain, recipe]
if sys.version_info >= (3, 12):
    engines.append(create_engine(plain.url, connect_args={"autocommit": False}))


@event.listens_for(recipe, "connect")
def no_begin_of_the_driver(connection, record):
    connection.isolation_level = None


@event.listens_for(recipe, "begin")
def own_begin(connection):
    connection.exec_driver_sql("BEGIN")


def stock(engine):
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT item FROM stock ORDER BY item")))


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("engine", engines)
def test_savepoints_rollbacks_and_ddl(engine, turn):
    before = stock(plain)
    assert "extra" not in before
    add = text("INSERT INTO stock (item, amount) VALUES ('extra', 1)")
    with engine.begin() as connection:
        connection.execute(add)
        with pytest.raises(IntegrityError), connection.begin_nested():
            connection.execute(add)
        connection.execute(text("CREATE TABLE more (a)"))
    assert stock(plain) == sorted([*before, "extra"])
    with engine.connect() as connection:
        connection.execute(text("DELETE FROM stock"))
        connection.rollback()
    assert stock(engine) == sorted([*before, "extra"])


KEPT = []


def test_a_closed_connection_holds_no_lock_while_a_cursor_exists(arena, test_client):
    connection = sqlite3.connect(arena.url.partition("///")[2])
    connection.execute("INSERT INTO stock (item, amount) VALUES ('vase', 1)")
    rows = connection.execute("SELECT 1 UNION SELECT 2")
    next(rows)
    KEPT.append(rows)
    connection.close()
    assert test_client.post("/orders/chair").status_code == 201
