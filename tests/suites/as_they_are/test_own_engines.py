"""An engine of the suite: in memory, or on a file of each test."""

import pytest
from async_app import app
from fastapi.testclient import TestClient
from httpx import ASGITransport, AsyncClient
from models import Base, Order
from sqlalchemy import StaticPool, create_engine, event, func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

in_memory = create_async_engine("sqlite+aiosqlite:///:memory:")
maker_in_memory = async_sessionmaker(in_memory, expire_on_commit=False)


@pytest.fixture
async def memory(override):
    async def get_session():
        async with maker_in_memory() as session:
            yield session

    async with in_memory.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    override(get_session)
    yield
    await in_memory.dispose()


async def test_a_database_in_memory(memory, turn):
    async with maker_in_memory.begin() as session:
        assert await session.scalar(select(func.count(Order.id))) == 0
        session.add(Order(item="vase"))
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://test") as client:
        assert (await client.get("/orders")).json() == ["vase"]


def engine_of_one_connection():
    options = {"check_same_thread": False}
    engine = create_engine("sqlite://", connect_args=options, poolclass=StaticPool)
    # As SQLAlchemy's page on SQLite says: without these two, sqlite3 begins too late.
    event.listen(engine, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    Base.metadata.create_all(engine)
    return engine


@pytest.fixture
def db_session():
    engine = engine_of_one_connection()
    with Session(engine) as session:
        yield session
    engine.dispose()


def test_an_engine_for_each_test(db_session, turn):
    assert db_session.scalar(select(func.count(Order.id))) == 0
    db_session.add(Order(item="vase"))
    db_session.commit()


@pytest.fixture(scope="session")
def engine_of_the_session():
    engine = engine_of_one_connection()
    with Session(engine) as session:
        session.add(Order(item="everywhere"))
        session.commit()
    yield engine
    engine.dispose()


def test_a_session_in_an_outer_transaction(engine_of_the_session, turn):
    with engine_of_the_session.connect() as connection:
        transaction = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            assert session.scalars(select(Order.item)).all() == ["everywhere"]
            session.add(Order(item="vase"))
            session.commit()
            assert session.scalar(select(func.count(Order.id))) == 2
        transaction.rollback()


@pytest.fixture
async def maker_of_a_file(tmp_path, override):
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/test_db.sqlite")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    maker = async_sessionmaker(engine, expire_on_commit=False)

    async def get_session():
        async with maker() as session:
            yield session

    override(get_session)
    yield maker
    await engine.dispose()
    (tmp_path / "test_db.sqlite").unlink()


async def test_a_file_of_the_test(maker_of_a_file, turn):
    client = TestClient(app)
    assert client.get("/orders").json() == []
    async with maker_of_a_file() as session:
        order = Order(item="vase")
        session.add(order)
        await session.commit()
        assert client.post(f"/settle/{order.id}").status_code == 200
        await session.refresh(order)
        assert order.status == "paid"
