"""What a template is built of: nothing that a test replaces, and what the summary says of none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

# The row names all that a test may replace.
SEED = """
import datetime
import os

import passwords
from app import Dancer


async def seed(session):
    is_now = datetime.date.today().year > 2020
    tenant = os.environ.get("TENANT", "none")
    session.add(Dancer(name=f"{is_now} {tenant} {passwords.hashed('pw')}"))
"""
PASSWORDS = """
def hashed(word):
    return f"hash of {word}"
"""
TESTS = """
import freezegun
import pytest
from unittest import mock

SEEDED = ["True none hash of pw"]
"""
FIRST = """
@pytest.fixture(autouse=True)
def frozen():
    with freezegun.freeze_time("2001-01-14"):
        yield

@pytest.fixture(autouse=True)
def tenant(monkeypatch):
    monkeypatch.setenv("TENANT", "of a test")

@mock.patch("passwords.hashed", return_value="mocked")
async def test_first(hashed, client):
    assert (await client.get("/dancers")).json() == SEEDED
"""
LATER = """
def test_later(test_client):
    assert test_client.get("/dancers").json() == SEEDED
"""


def test_no_fixture_or_decorator_of_a_test_acts_on_the_seed(example: Example) -> None:
    """pytest-arena builds the template before the first fixture of such a test."""
    project = example.with_files(
        seed=SEED, passwords=PASSWORDS, test_it=TESTS + FIRST, test_later=TESTS + LATER
    )
    project.run("test_it.py", "test_later.py").expect(passed=2).says("template built in")


LOUD_SEED = """
import logging
import warnings
from app import Dancer


async def seed(session):
    warnings.warn("the seed warns")
    logging.getLogger("seed").error("the seed logs")
    session.add(Dancer(name="Sand"))
"""
QUIET_TESTS = """
def test_quiet(recwarn, caplog, test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    assert not recwarn.list
    assert "the seed logs" not in caplog.text
"""


def test_warnings_and_logs_of_a_build_are_no_tests(example: Example) -> None:
    project = example.with_files(seed=LOUD_SEED, test_quiet=QUIET_TESTS)
    project.run().expect(passed=1).says("template built in")


OWN_TABLES = """
async def test_one(client):
    assert (await client.get("/dancers")).json() == []
    assert (await client.post("/dancers/Sand")).status_code == 201

def test_two(test_client):
    assert test_client.get("/dancers").json() == []
"""

AT_IMPORT = """
import asyncio
async def create():
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()
asyncio.run(create())
app = FastAPI()
"""

IN_THE_LIFESPAN = """
from contextlib import asynccontextmanager
@asynccontextmanager
async def lifespan(app):
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
app = FastAPI(lifespan=lifespan)
"""


@pytest.mark.parametrize("where", [AT_IMPORT, IN_THE_LIFESPAN], ids=["import", "lifespan"])
def test_an_app_that_makes_its_tables_itself(example: Example, where: str) -> None:
    bare = example.change("pytest.ini", "arena_schema = app:Base\narena_seed = seed:seed\n", "")
    # The name of the project's folder says nothing about its modules.
    bare = replace(bare.with_paths({"pyproject.toml": ""}), folder=bare.folder / "tests")
    run = bare.change("app.py", "app = FastAPI()\n", where).with_files(test_own=OWN_TABLES).run()
    run.expect(passed=2).says("starts with the tables:", "arena_schema = app:Base")


def test_a_database_that_stays_empty_is_told_what_would_fill_it(example: Example) -> None:
    """The usual beginning: the tables are made by hand, or by a command, before the app starts."""
    bare = example.change("pytest.ini", "arena_schema = app:Base\narena_seed = seed:seed\n", "")
    tests = "async def test_one(client):\n    await client.get('/dancers')\n"
    run = bare.with_files(test_own=tests).run().expect(1, failed=1)
    run.says("no template: the database starts empty", "the tables: arena_schema = app:Base")
    assert "drop_all" not in run.output
