"""Configurations that are impossible on PostgreSQL are errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import PRODUCTION, on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

OWN = "[pytest]\narena_database = own"


@pytest.mark.parametrize(
    "option,says",
    [
        (
            "--arena-database=sqlite",
            "with arena_database = sqlite, pytest-arena does not replace databases of this product",
        ),
        ("--arena-database=postgresql://nobody:pw@127.0.0.1:1/x", "cannot be used"),
    ],
)
def test_what_cannot_be_on_postgresql_is_said_once(
    example: Example, option: str, says: str
) -> None:
    """In four parts, at the first connection. Without a server the run ends."""
    test = "async def test_one(client): await client.get('/dancers')\n"
    project = on_postgresql(example, test_it=test + test.replace("one", "two"))
    run = project.change("pytest.ini", "[pytest]", OWN).run(option)
    run.expect(1, failed=1 if "postgresql://" in option else 2)
    run.says(says, "why:", "cause:", "next:")
    run.never_says("s3cret", "nobody:pw")


def test_without_psycopg_one_error_says_what_to_install(example: Example) -> None:
    """pytest-arena needs psycopg, whichever driver the app has. asyncpg and psycopg2 do not do."""
    without = on_postgresql(
        example,
        conftest='import sys\n\nsys.modules["psycopg"] = None\n',
        test_it="async def test_it(client):\n    await client.get('/dancers')\n",
    )
    run = without.change("pytest.ini", "[pytest]", OWN).run()
    run.expect(status=1, failed=1).says("ConfigError: psycopg cannot be imported").says(
        "why:", "cause:", "pip install 'pytest-arena[postgresql]'"
    )


ASYNC_SESSION = """
from sqlalchemy.ext.asyncio import AsyncSession

async def test_it(db_session):
    assert isinstance(db_session, AsyncSession)
"""


def test_the_session_of_a_variable_by_psycopg_is_async_in_an_async_test(example: Example) -> None:
    """The driver has a sync and an async dialect, and the app has no engine yet."""
    project = example.with_files(test_it=ASYNC_SESSION).with_paths(
        {"pytest.ini": "[pytest]\nasyncio_mode = auto\narena_database = own\n"}
    )
    env = {"DATABASE_URL": PRODUCTION.replace("asyncpg", "psycopg")}
    project.run(env=env).expect(passed=1)
