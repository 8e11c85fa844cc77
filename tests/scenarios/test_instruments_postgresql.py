"""What do the instruments see of a test on PostgreSQL, by each isolation and driver?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.proving import told
from tests.scenarios.seen import facts_of, seeing

if TYPE_CHECKING:
    from pathlib import Path

TESTS = """
from sqlalchemy import create_engine, text
from app import Dancer, maker


@pytest.fixture(scope="class")
def crew(arena):
    with arena.session() as session:
        session.add_all([Dancer(name="Ata"), Dancer(name="Bo")])
        session.commit()


async def _asked(client):
    assert (await client.get("/dancers")).status_code == 200


class TestWide:
    @proves
    async def test_wide(self, client, crew):
        await _asked(client)


@proves
async def test_usual(client, db_session):
    db_session.add(Dancer(name="Storm"))
    await _asked(client)

@proves
async def test_many(client, db_session):
    db_session.add_all([Dancer(name=f"Storm {number}") for number in range(1_500)])
    await _asked(client)

@proves
async def test_came_and_went(client, db_session):
    storm = Dancer(name="Storm")
    db_session.add(storm)
    await db_session.commit()
    await db_session.delete(storm)
    await _asked(client)

@proves
async def test_by_a_text(client):
    async with maker() as session:
        await session.execute(text("INSERT INTO dancers (name) VALUES ('Storm'), ('Crumbs')"))
        await session.commit()
    await _asked(client)

@proves
async def test_changed(client, db_session):
    db_session.add(Dancer(name="Storm"))
    await client.post("/dancers/Crumbs")
    assert (await client.get("/dancers")).json() == ["Sand", "Storm", "Crumbs"]

@proves
async def test_nothing(client):
    await _asked(client)
"""
SEEDED = {"wide": 2, "usual": 1, "many": 1_500, "by_a_text": 2, "changed": 1}


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["undo", "clone", "rollback"])
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_rows_are_counted_net_whatever_the_driver_says(
    tmp_path: Path, driver: str, isolation: str
) -> None:
    """Asyncpg counts no rows that are returned; a thousand come in several statements."""
    example = seeing(tmp_path, TESTS)
    env = {
        "ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"],
        "PYTEST_ADDOPTS": f"--arena-isolation={isolation}",
        "DATABASE_URL": f"postgresql+{driver}://me:s3cret@db.example.org/shop",
    }
    run = told(example, env=env)
    found = {name: facts_of(run, name).get("seeded") for name in run.scenarios}
    assert {name: rows["dancers"] for name, rows in found.items() if rows} == SEEDED, run.run.output
    post, get = facts_of(run, "changed")["requests"]
    assert (post["changed"], get.get("changed", {})) == ({"dancers": 1}, {})


UNSEEN = """
from app import engine


@pytest.fixture
async def copied():
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        records = [(50, "Storm")]
        await raw.driver_connection.copy_records_to_table("dancers", records=records)
        await connection.commit()


@proves
async def test_by_copy(client, copied):
    assert (await client.get("/dancers")).json() == ["Sand", "Storm"]


@proves
async def test_by_no_row(client):
    await client.post("/dancers/Crumbs")
    assert (await client.get("/dancers")).json() == ["Sand", "Crumbs"]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "isolation, status",
    [("undo", "PROVEN"), ("clone", "UNKNOWN"), ("rollback", "UNKNOWN")],
)
def test_rows_that_a_driver_copies_count_or_are_unknown(
    tmp_path: Path, isolation: str, status: str
) -> None:
    """No statement shows them. Without a journal it is not known when they came."""
    env = {
        "ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"],
        "PYTEST_ADDOPTS": f"--arena-isolation={isolation}",
    }
    env["DATABASE_URL"] = "postgresql+asyncpg://me:s3cret@db.example.org/shop"
    run = told(seeing(tmp_path, UNSEEN), env=env)
    assert run.statuses == {"by_copy": status, "by_no_row": "HOLLOW"}, run.run.output
    assert "no row was seeded" in run.reason("by_no_row")
    if status == "UNKNOWN":
        assert f"with isolation {isolation} pytest-arena records no rows" in run.reason("by_copy")


COPYING = """
import pytest

@proves
async def test_copies(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/copies/Storm")).status_code == 200
    assert (await client.get("/dancers")).json() == ["Sand", "Storm"]


@proves
async def test_copies_none(client):
    assert (await client.post("/none")).status_code == 200
"""
COPIES = {
    "asyncpg": """
    await raw.driver_connection.copy_records_to_table("dancers", records=[(50, name)])
    """,
    "psycopg": """
    async with raw.driver_connection.cursor() as cursor:
        async with cursor.copy("COPY dancers (id, name) FROM STDIN") as copy:
            await copy.write_row((50, name))
    """,
}
ROUTES = """

@app.post("/copies/{name}")
async def copies(name: str, db=Depends(get_db)):
    connection = await db.connection()
    raw = await connection.get_raw_connection()
    COPY
    await db.commit()


@app.post("/none")
async def none(db=Depends(get_db)):
    await db.scalars(select(Dancer))
"""


@pytest.mark.parametrize("driver", ["asyncpg", pytest.param("psycopg", marks=pytest.mark.slow)])
def test_rows_that_a_request_copies_are_its_changes(tmp_path: Path, driver: str) -> None:
    """A request that writes nothing is still said to: the journal knows the difference."""
    env = {"ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"]}
    env["DATABASE_URL"] = f"postgresql+{driver}://me:s3cret@db.example.org/shop"
    example = seeing(tmp_path, COPYING)
    app = example.files["app.py"] + ROUTES.replace("COPY", COPIES[driver])
    run = told(example.with_files(app=app), "-v", env=env)
    run.run.expect(passed=2)
    [_, copy, _] = facts_of(run, "copies")["requests"]
    assert copy.get("changed") == {"dancers": 1}
    run.run.never_says("POST /copies/{name} changed no row")
    run.run.says("POST /none changed no row, and answered 200")
