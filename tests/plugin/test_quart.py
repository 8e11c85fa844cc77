"""Quart's own test client: arena knows its requests as those of the other clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.example import APP, CONFIG, SEED, Example

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("quart")

ROUTES = """
app = Quart(__name__)


@app.get("/dancers")
async def dancers():
    async with maker() as db:
        return [dancer.name for dancer in await db.scalars(select(Dancer).order_by(Dancer.id))]


@app.post("/dancers/<name>")
async def add(name):
    async with maker() as db:
        db.add(Dancer(name=name))
        await db.commit()
    return name, 201


@app.post("/lost/<name>")
async def lose(name):
    async with maker() as db:
        db.add(Dancer(name=name))
        await db.flush()
    return name, 201


@app.post("/broken")
async def broken():
    raise ValueError("no dancer")
"""
TESTS = """
import asyncio
import pytest
from app import Dancer, app


@pytest.mark.parametrize("turn", range(2))
async def test_sees_rows(db_session, arena, turn):
    client = app.test_client()
    db_session.add(Dancer(name="Dune"))
    assert await (await client.get("/dancers?all=1")).json == ["Sand", "Dune"]
    assert (await client.post("/dancers/Storm")).status_code == 201
    both = await asyncio.gather(client.get("/dancers"), client.post("/dancers/Ray"))
    assert [answer.status_code for answer in both] == [200, 201]
    requests = [(each.method, each.path, each.status) for each in arena.requests]
    assert requests[:2] == [("GET", "/dancers", 200), ("POST", "/dancers/Storm", 201)]
    assert sorted(requests[2:]) == [("GET", "/dancers", 200), ("POST", "/dancers/Ray", 201)]
    assert arena.changes().tables == ("dancers",)


wide_client = app.test_client()


@pytest.mark.parametrize("turn", range(2))
async def test_cookies(turn):
    assert len(wide_client.cookie_jar) == 0
    wide_client.set_cookie("localhost", "login", "Sand")


async def test_loses_a_row():
    assert (await app.test_client().post("/lost/Ray")).status_code == 201


async def test_that_breaks():
    assert (await app.test_client().post("/broken")).status_code == 200
"""


@pytest.fixture
def quart(tmp_path: Path) -> Example:
    """A Quart app with a global engine, and one row for each test."""
    models = APP.partition("async def get_db")[0]
    models = models.replace(
        "from fastapi import Depends, FastAPI, HTTPException", "from quart import Quart"
    )
    files = {"app.py": models + ROUTES, "seed.py": SEED, "pytest.ini": CONFIG}
    return Example(tmp_path / "project", files)


@pytest.mark.slow
def test_requests_of_its_client_are_known(quart: Example) -> None:
    """Rows of fixtures are committed before them, and a lost write or an exception is named."""
    run = quart.with_files(test_it=TESTS).run("-Werror::pytest_arena.LostWriteWarning")
    run.expect(status=1, passed=5, failed=1, errors=1)
    run.says("test_loses_a_row", "POST /lost/Ray 201 wrote dancers (1 row)")
    run.says("POST /broken 500", "raised ValueError: no dancer")
