"""PostgreSQL: a suite that makes its test database by itself is told to leave that out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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


REFUSED = """
import pytest
from conftest import create, drop, sent

def test_in_a_test(arena):
    with arena.expect_refusal() as refused:
        drop()
    assert "WHERE datname = current_database()" in refused.error.fix

@pytest.mark.parametrize("statement, instead", {
    "CREATE DATABASE more": "delete the fixture that creates a test database",
    "ALTER DATABASE shop_real SET x.y = '1'": "in a migration or in arena_schema",
    "ALTER ROLE me SET work_mem = '1MB'": "set the role's default in this database alone",
    "ALTER SYSTEM SET work_mem = '1MB'": "by hand before the tests",
}.items())
def test_what_to_do(arena, statement, instead):
    with arena.expect_refusal() as refused:
        sent(statement)
    assert instead in refused.error.fix
    assert "(," not in str(refused.error)
"""


@pytest.mark.slow
def test_each_refusal_says_what_to_do_instead(example: Example) -> None:
    """By the statement."""
    conftest = MAKES_ITS_OWN.replace("SCOPE", "session").replace(", autouse=True", "")
    on_postgresql(example, conftest=conftest, test_it=REFUSED).run().expect(passed=5)


MAKES_BY_A_DRIVER = """
import psycopg2, pytest

@pytest.fixture(scope="session", autouse=True)
def database():
    connection = psycopg2.connect("postgresql://me@db.example.org/postgres")
    connection.autocommit = True
    connection.cursor().execute("CREATE DATABASE shop_test")
"""


@pytest.mark.slow
def test_a_refused_fixture_that_makes_a_test_database_is_to_be_deleted(example: Example) -> None:
    """To allow the server's own database would let it create and drop real ones."""
    project = on_postgresql(example).with_files(
        conftest=MAKES_BY_A_DRIVER, test_it="def test_it(): pass"
    )
    run = project.run("-q").expect(1, errors=1)
    run.says("refused: a connection to", "creates a test database here is not needed: delete it")
    run.never_says("arena_allow")
