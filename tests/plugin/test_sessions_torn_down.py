"""``db_session`` in the tear-down of a fixture: it still has the instances of the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from pytest_arena.testing import Example

ASYNC = """
import pytest_asyncio
import pytest
from sqlalchemy import inspect, select
from app import Dancer

@pytest_asyncio.fixture
async def dancer(db_session):
    dancer = Dancer(name="Dune")
    db_session.add(dancer)
    await db_session.commit()
    yield dancer
    assert dancer in db_session
    await db_session.refresh(dancer)
    assert dancer.name in {"Ruby", "Lost"}
    await db_session.delete(dancer)
    await db_session.commit()
    assert (await db_session.scalars(select(Dancer.name))).all() == ["Sand"]

async def test_by_the_app(dancer, client):
    assert (await client.get("/dancers")).json() == ["Sand", "Dune"]
    assert (await client.put(f"/dancers/{dancer.id}/Ruby")).status_code == 200

async def test_by_the_test(dancer, db_session):
    dancer.name = "Ruby"
    await db_session.commit()
    db_session.add(Dancer(name="Lost"))

async def test_by_a_change_that_is_not_committed(dancer, db_session, client):
    await client.put(f"/dancers/{dancer.id}/Ruby")
    dancer.name = "Lost"

kept = []

async def test_an_instance_that_is_kept(db_session):
    kept.append(await db_session.get(Dancer, 1))

async def test_in_a_later_test():
    assert kept[0].name == "Sand"
    assert inspect(kept[0]).session is None
"""

SYNC = """
import pytest
from sqlalchemy import select
from app import Dancer

@pytest.fixture
def dancer(db_session):
    dancer = Dancer(name="Dune")
    db_session.add(dancer)
    db_session.commit()
    yield dancer
    db_session.refresh(dancer)
    assert dancer.name == "Ruby"
    db_session.delete(dancer)
    db_session.commit()
    assert db_session.scalars(select(Dancer.name)).all() == ["Sand"]

def test_by_the_app(dancer, test_client):
    assert test_client.get("/dancers").json() == ["Sand", "Dune"]
    assert test_client.put(f"/dancers/{dancer.id}/Ruby").status_code == 200
"""

RENAME = """

@app.put("/dancers/{id}/{name}")
async def rename(id: int, name: str, db=Depends(get_db)):
    (await db.get_one(Dancer, id)).name = name
    await db.commit()
"""


@pytest.mark.parametrize("product", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_the_instances_are_there_until_the_fixture_has_ended(
    example: Example, product: str
) -> None:
    """A fixture refreshes or deletes them. After the test the session forgets them."""
    app = example.files["app.py"] + RENAME
    example = example.with_files(app=app)
    if product == "postgresql":
        example = on_postgresql(example)
    tests = example.with_files(test_async=ASYNC, test_sync=SYNC)
    tests.run().expect(passed=6)
