"""Connections that fixtures and sessions hold while each test gets another database."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pymysql
import pytest

from pytest_arena._mysql._sessions import begin_session, sessions_inside
from pytest_arena._product import ConnectTarget, Key
from pytest_arena._values import Address
from tests.mysql.shop import shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer

HELD = """
import pytest
import sqlalchemy
from app import Item, URL
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

engine = sqlalchemy.create_engine(URL.replace("asyncmy", "pymysql"))
COUNT = select(func.count(Item.id))
RENUMBER = text("ALTER TABLE item AUTO_INCREMENT = 100")  # replaces the database after the test
of_module = Session(engine)


@pytest.fixture(scope="module")
def held():
    with engine.connect() as connection:
        yield connection


@pytest.mark.parametrize("turn", range(3))
def test_a_connection_of_a_fixture_goes_along(held, turn):
    assert held.scalar(COUNT) == 1
    held.execute(RENUMBER)
    held.rollback()


@pytest.mark.parametrize("turn", range(3))
def test_a_session_of_the_module_that_has_read_goes_along(turn):
    assert of_module.scalar(COUNT) == 1
    of_module.add(Item(name="new"))
    of_module.execute(RENUMBER)
    of_module.commit()
    assert of_module.scalar(COUNT) == 2
"""


@pytest.mark.slow
def test_what_is_held_over_tests_opens_another_connection(
    server: StoryMySQLServer, tmp_path: Path
) -> None:
    """A holder that does not know that its connection has ended would raise an AssertionError."""
    shop(server, tmp_path, "mysql+asyncmy").with_files(test_held=HELD).run("-q").expect(passed=6)


SCHEMA_WITH_PROGRAMS = """
CREATE TABLE item (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50));
CREATE TABLE line (id INT AUTO_INCREMENT PRIMARY KEY, item_id INT);
CREATE PROCEDURE note_tenant() SET @tenant = 7;
CREATE FUNCTION count_up() RETURNS INT DETERMINISTIC RETURN @calls := COALESCE(@calls, 0) + 1;
CREATE TRIGGER sum_up AFTER INSERT ON line FOR EACH ROW SET @last = NEW.id;
"""
VARIABLES = """
import pytest
import sqlalchemy
from app import URL
from pymysql.cursors import DictCursor
from sqlalchemy import text

engine = sqlalchemy.create_engine(URL.replace("asyncmy", "pymysql"))


@pytest.mark.parametrize("turn", range(2))
@pytest.mark.parametrize("statement", [
    "CALL note_tenant()",
    "SELECT count_up()",
    "INSERT INTO line (item_id) VALUES (1)",
    # Only MariaDB has the following ones.
    "EXECUTE IMMEDIATE 'SET @tenant = 8'",
    "BEGIN NOT ATOMIC SET @tenant = 9; END",
])
def test_each_test_has_no_variables(statement, turn):
    with engine.begin() as connection:
        found = connection.execute(text("SELECT @tenant, @calls, @last")).one()
        assert tuple(found) == (None, None, None)
        connection.execute(text(statement))


@pytest.mark.parametrize("turn", range(2))
def test_each_test_has_the_character_set_of_the_url(turn):
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT @@character_set_client")) == "utf8mb4"
        connection.connection.driver_connection.set_character_set("latin1")


@pytest.mark.parametrize("turn", range(2))
def test_each_test_has_the_cursors_of_the_driver(turn):
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
        connection.connection.driver_connection.cursorclass = DictCursor
"""


@pytest.mark.slow
def test_a_variable_of_a_program_ends_with_its_test(
    server: StoryMySQLServer, tmp_path: Path
) -> None:
    """A routine, a trigger or a string sets the variable, so the statement itself does not."""
    example = shop(server, tmp_path, "mysql+asyncmy").change("pytest.ini", "app:Base", "schema.sql")
    example = example.with_paths({"schema.sql": SCHEMA_WITH_PROGRAMS})
    example = example.with_files(test_variables=VARIABLES)
    if "MariaDB" in server.version:
        example.run("-q").expect(passed=14)
        return
    on_mysql = VARIABLES[: VARIABLES.index("    # Only")] + VARIABLES[VARIABLES.index("])") :]
    example.with_files(test_variables=on_mysql).run("-q").expect(passed=10)


def test_a_fork_does_not_count_the_transactions_of_its_parent(server: StoryMySQLServer) -> None:
    """The child can neither end these transactions nor wait for them."""
    login = server.developers_arguments
    address = Address("mysql", login["host"], login["port"], login["user"], login["database"])
    target = ConnectTarget(Key("server", "mysql/shop"), "", (0, 0), address)
    with pymysql.connect(**login, ssl_disabled=True) as connection:
        begin_session(connection, target)
        connection.begin()
        assert sessions_inside(address.database) == {connection.thread_id()}
        child = os.fork()
        if not child:
            number = -1
            try:
                number = len(sessions_inside(address.database))
            finally:
                os._exit(number)
        _, status = os.waitpid(child, 0)
        assert status == 0
