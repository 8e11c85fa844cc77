"""``arena_keep``, the empty stages, and ``arena`` from fixtures of any scope."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example, Run

KEEP = """
import pytest
from app import Dancer

async def test_failed(client, db_session):
    await client.post("/dancers/written")
    assert False

async def test_passed(client):
    await client.post("/dancers/written")

@pytest.mark.arena(keep="always")
async def test_marked(client):
    await client.post("/dancers/marked")

@pytest.mark.arena(keep="never")
async def test_never(client):
    assert False

def test_without_database():
    assert False

@pytest.mark.parametrize("text", ["long" * 60 + "/ü", "long" * 60 + "/ö"])
async def test_names(client, text):
    assert False
"""

STAGES = """
import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import OperationalError
from app import Dancer, engine

async def tables():
    async with engine.connect() as connection:
        return await connection.run_sync(lambda c: inspect(c).get_table_names())

@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        session.add(Dancer(name="wide"))
        session.commit()

@pytest.mark.arena(seed=False)
async def test_without_seed(client):
    assert (await client.get("/dancers")).json() == []
    await client.post("/dancers/one")

@pytest.mark.arena(schema=False)
async def test_without_schema(db_session):
    assert await tables() == []
    await db_session.execute(text("CREATE TABLE mine (a)"))
    await db_session.commit()
    assert await tables() == ["mine"]

async def test_whole(client):
    assert (await client.get("/dancers")).json() == ["Sand"]

async def test_with_wide(wide, client):
    assert (await client.get("/dancers")).json() == ["Sand", "wide"]

@pytest.mark.arena(schema=False)
async def test_empty_above_wide(wide, client):
    assert await tables() == []

@pytest.mark.arena(seed=False)
async def test_unseeded_above_wide(wide, client):
    assert (await client.get("/dancers")).json() == []

async def test_whole_above_wide(wide, client):
    assert (await client.get("/dancers")).json() == ["Sand", "wide"]
"""

FACADE = """
import sqlite3
import pytest
import pytest_asyncio
from app import Dancer, engine

@pytest.fixture(scope="session")
def in_session(arena):
    assert "dev.db" in arena.url and arena.isolation == "copy" and arena.requests == ()
    assert arena.engine.url.database == engine.url.database or arena.engine is not engine
    client = arena.test_client()
    assert client.post("/dancers/session").status_code == 201
    yield client

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def in_module(arena, in_session):
    assert arena.requests == ()
    client = arena.new_client()
    await client.post("/dancers/module")

async def test_any_scope(in_session, in_module, arena, client, tmp_path):
    assert (await client.get("/dancers")).json() == ["Sand", "session", "module"]
    more = arena.client()
    assert (await more.post("/dancers/more")).status_code == 201
    async with arena.session() as session:
        session.add(Dancer(name="session's"))
        await session.commit()
    assert [request.path for request in arena.requests] == ["/dancers", "/dancers/more"]
    kept = sqlite3.connect(arena.keep())
    assert kept.execute("SELECT count(*) FROM dancers").fetchone() == (5,)
    kept.close()

def test_refusal(arena, in_session):
    with arena.expect_refusal() as refused:
        sqlite3.connect("dev.db")
    assert "dev.db" in str(refused.error)
    with pytest.raises(AssertionError, match="nothing was refused"):
        with arena.expect_refusal():
            pass
    assert in_session.get("/dancers").json() == ["Sand", "session", "module"]

def test_clients_of_both_kinds_end_with_the_test(arena, test_client):
    first = arena.test_client()
    assert first.get("/dancers").status_code == test_client.get("/dancers").status_code == 200
"""


def kept_files(run: Run) -> list[Path]:
    """The files that runs have kept so far."""
    return sorted(run.folder.parent.glob("cache/kept/*"))


def names_in(file: Path) -> list[str]:
    """The dancers in a kept file, read as anybody would."""
    with closing(sqlite3.connect(file)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM dancers ORDER BY id")]


def test_keep_failed_tests(example: Example) -> None:
    """P8: the file holds what the test wrote, and the report says how to open it."""
    project = example.with_files(test_it=KEEP)
    run = project.run("--arena-keep=failed")
    run.expect(1, passed=2, failed=5)
    kept = {file.name: names_in(file) for file in kept_files(run)}
    assert kept["test_it.py_test_failed-" + _digest(kept, "test_failed") + "dev.db"] == [
        "Sand",
        "written",
    ]
    assert len(kept) == 5
    assert len(re.findall(r"sqlite3 \S+/kept/\S+", run.output)) == 5
    assert len(kept_files(project.run("--arena-keep=failed"))) == 5


def _digest(kept: dict[str, list[str]], test: str) -> str:
    name = next(name for name in kept if f"{test}-" in name)
    return name.removeprefix(f"test_it.py_{test}-").removesuffix("dev.db")


@pytest.mark.slow
def test_keep_is_bounded_and_never_makes_a_database_pitfall_095(example: Example) -> None:
    """P7, P10: the newest fifty stay; a test without a database has nothing to keep."""
    text = (
        "import pytest\n@pytest.mark.parametrize('n', range(55))\n"
        "def test_many(n, test_client):\n    test_client.get('/dancers')\n"
    )
    run = example.with_files(test_it=text).run("--arena-keep=always")
    run.expect(passed=55)
    assert len(kept_files(run)) == 50
    broken = example.change(
        "seed.py", "async def seed(session):", "async def seed(session):\n    1/0"
    )
    failing = (
        "def test_fails(): assert 0\ndef test_connects(test_client): test_client.get('/dancers')\n"
    )
    again = broken.with_files(test_it=failing).run("--arena-keep=failed")
    again.expect(1, failed=2).says("ZeroDivisionError").never_says("/kept/")


@pytest.mark.slow
def test_stages_and_the_facade(example: Example) -> None:
    """Tests of migrations get an empty database, also above wide fixtures; `arena` in any scope."""
    example.with_files(test_stages=STAGES, test_facade=FACADE).run(
        "test_stages.py", "test_facade.py"
    ).expect(passed=10)
