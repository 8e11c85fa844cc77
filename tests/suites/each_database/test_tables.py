"""Each database to which a test connects has the tables of the value without a name."""

import os

from models import Order
from sqlalchemy import StaticPool, create_engine, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session


def tables(engine):
    names = inspect(engine).get_table_names()
    engine.dispose()
    return names


def test_the_engine_of_the_suite(db_session, client, turn):
    db_session.add(Order(item="vase"))
    db_session.commit()
    assert client.get("/orders").json() == ["vase"]


def test_a_database_that_is_first_used_inside_a_test(of_module, db_session, turn):
    later = create_engine("sqlite:///later.db")
    with Session(later) as session:
        assert session.scalars(select(Order.item)).all() == []
        session.add(Order(item="vase"))
        session.commit()
    later.dispose()
    assert db_session.scalars(select(Order.item)).all() == ["of the module"]


async def test_a_database_that_is_first_used_inside_of_a_loop(turn):
    engine = create_async_engine("sqlite+aiosqlite:///asynchronous.db")
    async with AsyncSession(engine) as session:
        assert (await session.scalars(select(Order.item))).all() == []
        session.add(Order(item="vase"))
        await session.commit()
    await engine.dispose()


def test_a_database_in_memory(turn):
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with Session(engine) as session:
        assert session.scalars(select(Order.item)).all() == []
        session.add(Order(item="vase"))
        session.commit()
    engine.dispose()


def test_a_database_with_a_value_of_its_own():
    assert tables(create_engine("sqlite:///notes.db")) == ["notes"]


def test_a_database_without_tables():
    assert tables(create_engine("sqlite:///empty.db")) == []


def test_a_fork_does_not_look_for_the_server(db_session):
    db_session.add(Order(item="vase"))
    db_session.commit()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def test_the_run_goes_on(db_session):
    assert "vase" not in db_session.scalars(select(Order.item)).all()
