"""Which of several databases is the app's first one, that gets the schema and db_session?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

USES_THE_APP = """
async def test_the_app_has_its_schema_and_seed(client, db_session, arena):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert arena.url.endswith("{name}") and str(arena.engine.url) == arena.url
"""

SECOND_ENGINE = """
import app, gc
from sqlalchemy import create_engine
gc.collect()
second = create_engine("sqlite:///second.db")
"""

CONFTEST = """
import os
os.environ["DATABASE_URL"] = "sqlite+aiosqlite:///for_tests.db"
"""


def test_the_oldest_engine_comes_first_whatever_the_collector_did(example: Example) -> None:
    """The app's engine, and not one that a test file makes after a garbage collection."""
    tests = SECOND_ENGINE + USES_THE_APP.format(name="dev.db")
    example.with_files(test_first=tests).run().expect(passed=1)


def test_a_variable_that_a_conftest_writes_anew_names_the_first_database(
    example: Example,
) -> None:
    """Also where it named another database before, which the arena had already redirected."""
    tests = example.with_files(conftest=CONFTEST, test_env=USES_THE_APP.format(name="for_tests.db"))
    tests.run().expect(passed=1)
    tests.run(env={"DATABASE_URL": "sqlite+aiosqlite:///dev.db"}).expect(passed=1)
