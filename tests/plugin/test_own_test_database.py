"""PostgreSQL: a suite that makes its test database by itself is told to leave that out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

# What a fixture of such a suite does, by the statements that SQLAlchemy-Utils sends.
MAKES_ITS_OWN = """
import pytest
from sqlalchemy import create_engine, make_url, text

TEST_URL = make_url("postgresql+psycopg2://me@db.example.org/shop-test")


def sent(*statements):
    engine = create_engine(TEST_URL.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def create():
    sent("CREATE DATABASE \\"shop-test\\" ENCODING 'utf8' TEMPLATE template1")


def drop():
    sent(
        "SELECT pg_terminate_backend(pg_stat_activity.pid) FROM pg_stat_activity"
        " WHERE pg_stat_activity.datname = 'shop-test' AND pid <> pg_backend_pid()",
        'DROP DATABASE "shop-test"',
    )


@pytest.fixture(scope="SCOPE", autouse=True)
def database():
    create()
    yield
    drop()


@pytest.fixture
def session(database):
    engine = create_engine(TEST_URL)
    with engine.begin() as connection:
        yield connection
    engine.dispose()
"""

USES_TABLES = """
import pytest
from app import Dancer
from sqlalchemy import select

@pytest.mark.parametrize("turn", range(2))
def test_it(session, turn):
    assert session.scalars(select(Dancer.name)).all() == []
    session.execute(Dancer.__table__.insert().values(name="Sand"))
"""

NAMED = "arena_schema =\n    shop-test = app:Base\n"


def test_a_fixture_that_makes_the_test_database_is_told_what_to_write(example: Example) -> None:
    """An engine on any database reaches the test's database, so the fixture is not needed."""
    conftest = MAKES_ITS_OWN.replace("SCOPE", "session")
    made = on_postgresql(example, conftest=conftest, test_it=USES_TABLES)
    run = made.run("-q").expect(1, errors=2)
    run.says(
        "refused: CREATE DATABASE, which reaches beyond the test's database",
        "conftest.py:12  connection.execute(text(statement))",
        "delete the fixture that creates a test database",
    )
    schema = "arena_schema = app:Base\narena_seed = seed:seed\n"
    followed = made.change("pytest.ini", schema, NAMED)
    followed = followed.change("conftest.py", "autouse=True", "")
    followed.change("conftest.py", "session(database)", "session()").run().expect(passed=2)
