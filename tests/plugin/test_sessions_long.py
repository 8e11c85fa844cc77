"""Sessions that live longer than a test: a module fixture's, and a suite's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import HOWS, env_of, shop

if TYPE_CHECKING:
    from tests.example import Example

LONG = """
import pytest
from sqlalchemy import func, select
from app import Order, Stock

LEFT = []

@pytest.fixture(scope="module")
def db(arena):
    with arena.session() as session:
        yield session

@pytest.fixture(scope="module")
def vase(db):
    order = Order(item="vase", status="of the module")
    db.add(order)
    db.commit()
    return order

def items(db):
    return sorted(db.scalars(select(Order.item)))

def test_1_writes(db, vase):
    LEFT.append(Order(item="lamp"))
    db.add(LEFT[0])
    db.commit()
    LEFT.append(db.get(Stock, "chair"))
    vase.status = "paid"
    db.commit()

def test_2_knows_nothing_of_that(db, vase):
    assert LEFT[0] not in db
    for order in db.identity_map.values():
        order.note = "seen"
    db.commit()
    assert items(db) == ["vase"]

def test_3_finds_the_values_of_the_module(db, vase):
    assert (vase.status, vase.note) == ("of the module", None)
    vase.status = "paid"
    db.commit()
    assert db.scalar(select(Order.status)) == "paid"

def test_4_deletes(db, vase):
    db.delete(vase)
    db.commit()
    assert items(db) == []

def test_5_has_it_again(db, vase):
    assert vase in db
    vase.status = "again"
    db.commit()
    assert db.scalar(select(Order.status)) == "again"

def test_6_leaves_a_change_unwritten(db, vase):
    vase.status = "never written"

def test_7_writes_nothing_of_that(db, vase):
    db.commit()
    assert db.scalar(select(Order.status)) == "of the module"

def test_8_the_same_key_is_another_row(db, vase):
    db.add(Order(item="torch"))
    db.commit()
    assert items(db) == ["torch", "vase"]
"""

WIDER = """
import pytest
from sqlalchemy import select
from app import Order

@pytest.fixture(scope="session")
def db(arena):
    with arena.session() as session:
        yield session

@pytest.fixture(scope="module", params=["vase", "lamp"])
def order(db, request):
    order = Order(item=request.param)
    db.add(order)
    db.commit()
    return order

KEPT = []

def test_rows_of_the_module(db, order):
    KEPT.append(order)
    assert [*db] == [order]
    order.note = "seen"
    db.commit()
    assert db.scalars(select(Order.item)).all() == [order.item]
"""

ASYNC = """
import pytest
import pytest_asyncio
from sqlalchemy import select
from app import Order

pytestmark = pytest.mark.asyncio(loop_scope="module")
LEFT = []

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def db(arena):
    async with arena.session() as session:
        yield session

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vase(db):
    order = Order(item="vase", status="of the module")
    db.add(order)
    await db.commit()
    return order

async def test_1_writes(db, vase):
    LEFT.append(Order(item="lamp"))
    db.add(LEFT[0])
    vase.status = "paid"
    await db.commit()

async def test_2_knows_nothing_of_that(db, vase):
    assert vase.status == "of the module"
    assert [*db.sync_session] == [vase]
    vase.status = "paid"
    await db.commit()
    assert (await db.scalars(select(Order.status))).all() == ["paid"]
"""

OWN = """
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from app import Order, Stock, engine

own = create_engine(engine.url.set(drivername=DRIVER))
LEFT = []

@pytest.fixture(scope="module")
def db():
    with Session(own) as session:
        yield session

def test_1_writes(db):
    db.get(Stock, "chair")
    LEFT.append(Order(item="lamp"))
    db.add(LEFT[0])
    db.commit()
    assert LEFT[0].id == 1

def test_2_writes_to_a_row_that_is_gone(db):
    LEFT[0].note = "more"
    db.commit()

def test_3_reads_a_row_that_is_gone(db):
    db.rollback()
    assert LEFT[0].note

def test_4_has_another_cause(db):
    db.rollback()
    stock = db.get(Stock, "lamp")
    with own.begin() as connection:
        connection.execute(Stock.__table__.delete())
    stock.amount = 1
    db.commit()
"""


OWN_VALUES = """
import asyncio
import threading
import pytest
import pytest_asyncio
from sqlalchemy import select
from app import Order, maker

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(arena):
    async with maker() as session:
        yield session

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def order(session):
    order = Order(item="vase")
    session.add(order)
    await session.commit()
    return order

async def items(session):
    return sorted(await session.scalars(select(Order.item)))

@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("turn", range(2))
async def test_values(session, order, turn):
    assert order.item == "vase"
    assert await items(session) == ["vase"]
    order.item = "lamp"
    session.add(Order(item="chair"))
    await session.commit()
    assert await items(session) == ["chair", "lamp"]

@pytest.fixture(scope="module")
def loop():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()

@pytest.fixture(scope="module")
def session_of_a_thread(arena, loop):
    session = maker()
    yield session
    asyncio.run_coroutine_threadsafe(session.close(), loop).result()

@pytest.mark.parametrize("turn", range(2))
def test_a_loop_in_a_thread(order, loop, session_of_a_thread, turn):
    async def write():
        assert await items(session_of_a_thread) == ["vase"]
        session_of_a_thread.add(Order(item="chair"))
        await session_of_a_thread.commit()
        assert await items(session_of_a_thread) == ["chair", "vase"]

    asyncio.run_coroutine_threadsafe(write(), loop).result()
"""


@pytest.mark.parametrize("how", HOWS)
def test_a_suites_own_session_has_the_values_of_before(example: Example, how: str) -> None:
    """A session with `expire_on_commit=False` keeps its fixture's instances loaded."""
    project = shop(example, test_values=OWN_VALUES)
    project.run("-p", "no:randomly", env=env_of(how)).expect(passed=4)


@pytest.mark.parametrize("how", HOWS)
def test_a_session_of_a_module_forgets_the_rows_of_a_test(example: Example, how: str) -> None:
    """It holds what it held before the test, with the values of then."""
    project = shop(example, test_long=LONG, test_async=ASYNC, test_wider=WIDER)
    project.run("-p", "no:randomly", env=env_of(how)).expect(passed=12)


TEAM_APP = """
from fastapi import FastAPI
from sqlalchemy import ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Team(Base):
    __tablename__ = "teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    members: Mapped[list["Member"]] = relationship(back_populates="team", cascade="all")


class Member(Base):
    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int] = mapped_column(ForeignKey("teams.id"))
    team: Mapped[Team] = relationship(back_populates="members")
    card: Mapped["Card"] = relationship(back_populates="member", cascade="all")


class Card(Base):
    __tablename__ = "cards"
    id: Mapped[int] = mapped_column(primary_key=True)
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"))
    is_locked: Mapped[bool] = mapped_column(default=True)
    member: Mapped[Member] = relationship(back_populates="card")


engine = create_engine("sqlite:///teams.db")
app = FastAPI()
"""

TEAM_SEED = """
from app import Card, Member, Team


def seed(session):
    session.add(Team(members=[Member(card=Card())]))
"""

RELATED = """
import pytest
from sqlalchemy import select
from app import Card, Member, Team, engine

LEFT = []

@pytest.fixture(scope="module")
def db(arena):
    with arena.session() as session:
        session.autoflush = False
        yield session

@pytest.fixture(scope="module")
def member(db):
    return db.scalars(select(Member)).one()

def test_1_loads_related_rows_and_changes_one(db, member):
    team = db.scalars(select(Team)).one()
    assert team.members == [member]
    LEFT.append(member.card)
    LEFT[0].is_locked = False
    db.add(Member(team=team))
    db.commit()

def test_2_holds_the_row_of_the_module_alone(db, member):
    assert [*db] == [member]
    card = db.scalars(select(Card)).one()
    assert card.is_locked
    card.is_locked = False
    db.commit()
    with engine.connect() as connection:
        assert connection.scalars(select(Card.is_locked)).one() is False

def test_3_loads_the_rows_anew(db, member):
    assert member.card is not LEFT[0]
    assert member.card.is_locked
    assert member.team.members == [member]

@pytest.fixture(scope="module")
def team(db):
    team = Team()
    db.add(team)
    return team

def test_4_leaves_what_a_fixture_has_pending(db, team):
    assert [*db.new] == [team]

def test_5_finds_it_pending(db, team):
    assert [*db.new] == [team]
"""


@pytest.mark.slow
def test_a_session_of_a_module_forgets_related_rows(example: Example) -> None:
    """Relationships of what it held lead to no instance that a test has changed."""
    project = example.with_files(app=TEAM_APP, seed=TEAM_SEED, test_related=RELATED)
    project.run("-p", "no:randomly").expect(passed=5)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.slow
def test_an_error_of_a_suites_own_session_names_the_cause(example: Example, how: str) -> None:
    """Its instances are the suite's: the report names the row, and the test that it is from."""
    driver = "sqlite" if how == "copy" else "postgresql+psycopg"
    project = shop(example, test_own=OWN.replace("DRIVER", repr(driver)))
    run = project.run("-p", "no:randomly", env=env_of(how))
    run.expect(1, passed=1, failed=3).says(
        """
        `Order` (orders id=1) is in a session that outlives a test. test_own.py::test_1_writes
        loaded or wrote it, and pytest-arena has undone the writes of that test
        """,
    )
    assert run.output.count("next: `with arena.session() as session:`") == 2
