"""``undo``: a wider fixture holds one transaction open, and tests are savepoints in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import on_postgresql, private_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.example import Example

CONFTEST = """
import pytest
import sqlalchemy
from sqlalchemy import text

INSERT = text("INSERT INTO dancers (name) SELECT gen_random_uuid() RETURNING id")
NUMBER = text("SELECT count(*) FROM dancers")


@pytest.fixture(scope="module")
def engine(arena):
    engine = sqlalchemy.create_engine(arena.url.replace("+asyncpg", "+psycopg"))
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def connection(engine):
    with engine.connect() as connection:
        transaction = connection.begin()
        connection.execute(text("INSERT INTO dancers (name) VALUES ('Crew')"))
        yield connection
        transaction.rollback()


@pytest.fixture
def savepoint(connection):
    savepoint = connection.begin_nested()
    yield connection
    savepoint.rollback()
"""
UNDONE = """
import pytest
from conftest import INSERT, NUMBER


@pytest.mark.parametrize("turn", range(3))
def test_all_begin_with_the_same_number(savepoint, turn):
    assert [savepoint.scalar(INSERT), savepoint.scalar(INSERT)] == [3, 4]
    assert savepoint.scalar(NUMBER) == 4


@pytest.mark.parametrize("turn", range(2))
def test_what_is_released_goes_with_what_it_is_in(savepoint, turn):
    with savepoint.begin_nested():
        assert savepoint.scalar(INSERT) == 3
"""
KEPT = """
import pytest
from conftest import INSERT, NUMBER


@pytest.mark.parametrize("number", [3, 4, 5])
def test_one_goes_on_where_the_other_ended(connection, number):
    assert connection.scalar(INSERT) == number
    assert connection.scalar(NUMBER) == number
"""
LATER = """
def test_nothing_of_it_is_left(arena):
    from conftest import INSERT, NUMBER

    with arena.session() as session:
        assert session.scalar(NUMBER) == 1
        assert session.scalar(INSERT) == 2
"""


@pytest.fixture
def env() -> Iterator[dict[str, str]]:
    """A server of its own."""
    with private_server() as server:
        yield {**server.env, "PYTEST_ADDOPTS": "--arena-isolation=undo"}


@pytest.mark.slow
def test_numbers_in_the_transaction_of_a_wide_fixture_pitfall_057(
    example: Example, env: dict[str, str]
) -> None:
    """They go back with a savepoint; where rows stay in the transaction, so do their numbers."""
    project = on_postgresql(
        example, conftest=CONFTEST, test_kept=KEPT, test_later=LATER, test_undone=UNDONE
    )
    run = project.run("test_undone.py", "test_kept.py", "test_later.py", env=env)
    run.expect(passed=9).says("a fixture keeps a transaction open during its tests")
