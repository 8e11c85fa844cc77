"""``db_session`` in the tear-down of a fixture: it still has the instances of the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

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


CREWS = """

from sqlalchemy import ForeignKey
from sqlalchemy.orm import relationship

class Crew(Base):
    __tablename__ = "crews"
    id: Mapped[int] = mapped_column(primary_key=True)

class Member(Base):
    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True)
    crew_id: Mapped[int | None] = mapped_column(ForeignKey("crews.id"))
    crew: Mapped[Crew] = relationship(backref="members")
"""
OF_A_COLLECTION = """
from app import Crew, Member
from sqlalchemy import delete, select

async def crew_with_a_member(session):
    member = Member(crew=Crew())
    session.add(member)
    await session.commit()
    assert member in await session.run_sync(lambda _: member.crew.members)
    return member

async def test_delete_and_commit(db_session):
    member = await crew_with_a_member(db_session)
    await db_session.delete(member)
    await db_session.commit()
    assert (await db_session.scalars(select(Member))).all() == []

async def test_delete_without_a_commit(db_session):
    member = await crew_with_a_member(db_session)
    await db_session.delete(member)
    await db_session.flush()
    assert (await db_session.scalars(select(Member))).all() == []

async def test_delete_by_a_statement(db_session):
    await crew_with_a_member(db_session)
    await db_session.execute(delete(Member))
    await db_session.commit()
    assert (await db_session.scalars(select(Member))).all() == []
"""


@pytest.mark.slow
def test_a_collection_may_still_hold_what_a_test_deletes(example: Example) -> None:
    """SQLAlchemy leaves a deleted instance in a collection that is loaded."""
    app = example.files["app.py"] + CREWS
    example.with_files(app=app, test_it=OF_A_COLLECTION).run().expect(passed=3)
