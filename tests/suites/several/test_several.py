"""Each database has its schema and seed, and each is restored."""

import datetime as dt
import threading

import pytest
from pytest_arena.errors import ConfigError
from sqlalchemy import create_engine, delete, func, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from two_databases import Order, Visit, analytics, analytics_sync, new_session, replica, shop


def counts():
    with new_session() as session:
        return [session.scalar(select(func.count(one.id))) for one in (Order, Visit)]


async def test_each_is_seeded_and_restored(turn):
    assert counts() == [2, 1]
    async with AsyncSession(analytics) as session:
        await session.execute(delete(Visit))
        await session.commit()
    with Session(shop) as session:
        session.execute(delete(Order).where(Order.id == 2))
        session.commit()
    assert counts() == [1, 0]
    await analytics.dispose()


def test_the_replica_reads(turn):
    with Session(shop) as session:
        session.add(Order(id=3))
        session.commit()
    with Session(replica) as session:
        assert session.scalars(select(Order.id)).all() == [1, 2, 3]


def test_a_session_with_binds_commits_to_both(turn):
    with new_session() as session:
        session.add_all([Order(id=7), Visit(id=7)])
        session.commit()
    assert counts() == [3, 2]


def test_named_sessions(arena):
    with arena.session(database="analytics") as session:
        session.add(Visit(id=5))
        session.commit()
        assert counts() == [2, 2]
    with arena.session(database="shop") as session, arena.session() as first:
        assert session.scalar(select(func.count(Order.id))) == 2
        assert first.scalar(select(func.count(Order.id))) == 2


async def test_a_named_session_is_of_the_kind_of_its_engine(arena):
    async with arena.session(database="analytics") as session:
        assert await session.scalar(select(func.count(Visit.id))) == 1
    with arena.session(database="shop") as session:
        assert session.scalar(select(func.count(Order.id))) == 2


def test_the_rows_of_each_become_older(arena):
    arena.age(days=30)
    with arena.session(database="analytics") as session:
        assert session.scalar(select(Visit.day)) == dt.date(2026, 3, 1)
    with pytest.raises(ConfigError, match=r"there is no column visits.at"):
        arena.age(days=1, also=["visits.id", "visits.at"])


def test_an_unknown_and_a_new_name(arena):
    with pytest.raises(ConfigError) as caught:
        arena.session(database="analytic")
    assert "arena.session(database='analytics')" in caught.value.fix
    assert "analytics, " in caught.value.cause
    engine = create_engine("sqlite:///reports.db")  # it has not connected yet
    with arena.session(database="reports") as session:
        assert inspect(session.connection()).get_table_names() == []
    engine.dispose()


async def test_engines_that_a_test_makes(turn):
    for name, model in (("shop", Order), ("analytics", Visit)):
        engine = create_async_engine(f"sqlite+aiosqlite:///{name}.db")
        async with AsyncSession(engine) as session:
            session.add(model(id=50))
            await session.commit()
        await engine.dispose()
    assert counts() == [3, 2]


@pytest.mark.arena(seed=False)
def test_without_the_seeds():
    assert counts() == [0, 0]


@pytest.mark.expect("A602", at="connection.execute(delete(Visit))")
def test_a_transaction_is_left_open_on_the_second():
    connection = analytics_sync.connect()
    connection.execute(delete(Visit))
    globals()["left"] = connection


def test_it_has_ended():
    assert counts() == [2, 1]


def test_other_names_of_a_file(monkeypatch):
    folder = analytics_sync.url.database.rpartition("/")[0].rpartition("/")[2]
    monkeypatch.chdir("..")
    engine = create_engine(f"sqlite:///{folder}/shop.db")
    with engine.connect() as connection:
        assert connection.scalar(select(func.count(Order.id))) == 2
    engine.dispose()


@pytest.fixture(scope="module")
def lock():
    with Session(shop) as session:
        session.add(Order(id=3))
        session.commit()
    connection = analytics_sync.connect()
    connection.exec_driver_sql("BEGIN EXCLUSIVE")
    threading.Timer(1.6, connection.close).start()  # pytest-arena waits for a second


@pytest.mark.arena(seed=False)
@pytest.mark.expect("A501", at="connection = analytics_sync.connect()")
def test_it_does_not_begin_in_the_second(lock):
    pass


def test_the_first_has_its_rows(lock):
    assert counts() == [3, 1]
