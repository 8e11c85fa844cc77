"""Suites with engines in memory: ``:memory:`` and ``StaticPool``, with ``create_all``.

From the plan for an isolated test database (its conftest, as printed, and both of its usages), and
the recipes that FastAPI and SQLAlchemy print for synchronous apps.
"""

__all__ = ["FILES", "TESTS"]

APP = """
from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


engine = create_async_engine("sqlite+aiosqlite:///battle_d.db")
async_session_maker = async_sessionmaker(engine)
sync_engine = create_engine("sqlite:///battle_d.db")


async def get_db():
    async with async_session_maker() as session:
        yield session


def get_session():
    with Session(sync_engine) as session:
        yield session


app = FastAPI()


@app.get("/dancers")
async def dancers(db=Depends(get_db)):
    return list(await db.scalars(select(Dancer.name).order_by(Dancer.id)))


@app.get("/sync-dancers")
def sync_dancers(session=Depends(get_session)):
    return list(session.scalars(select(Dancer.name).order_by(Dancer.id)))


@app.post("/sync-dancers/{name}", status_code=201)
def add(name: str, session=Depends(get_session)):
    session.add(Dancer(name=name))
    session.commit()
"""

CONFTEST = """
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from app import Base

# Create a separate in-memory engine for tests
_test_engine = create_async_engine(
    "sqlite+aiosqlite:///:memory:",
    echo=False,
    future=True,
)

_test_session_maker = async_sessionmaker(
    _test_engine,
    class_=AsyncSession,
    expire_on_commit=False,
)

# PUBLIC API - Import this in test files!
test_session_maker = _test_session_maker


@pytest_asyncio.fixture(scope="function", autouse=True)
async def setup_test_database():
    async with _test_engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    yield
    await _test_engine.dispose()  # else its thread outlives the loop
"""

TEST_ASYNC = """
import pytest
from httpx import ASGITransport, AsyncClient
from sqlalchemy import func, select
from app import Dancer, app, get_db
# ✅ CORRECT - Use isolated test database
from tests.conftest import test_session_maker


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.asyncio
async def test_something(turn):
    async with test_session_maker() as session:
        # Test code here - uses in-memory DB
        assert await session.scalar(select(func.count(Dancer.id))) == 0
        session.add(Dancer(name="Ruby"))
        await session.commit()


@pytest.mark.asyncio
async def test_the_override_leads_into_memory():
    async def override_get_db():
        async with test_session_maker() as session:
            yield session

    async with test_session_maker.begin() as session:
        session.add(Dancer(name="Ruby"))
    app.dependency_overrides[get_db] = override_get_db
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://test") as client:
        assert (await client.get("/dancers")).json() == ["Ruby"]
    app.dependency_overrides.clear()
"""

TEST_SYNC = """
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import StaticPool, create_engine, event, func, select
from sqlalchemy.orm import Session
from app import Base, Dancer, app, get_session


# FastAPI's recipe: an engine for each test, one connection for all threads
@pytest.fixture
def db_session():
    engine = create_engine(
        "sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool
    )
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def client(db_session):
    app.dependency_overrides[get_session] = lambda: db_session
    yield TestClient(app)
    app.dependency_overrides.clear()


@pytest.mark.parametrize("turn", [1, 2])
def test_client_and_session_share_the_memory(client, db_session, turn):
    assert client.get("/sync-dancers").json() == []
    db_session.add(Dancer(name="Ruby"))
    db_session.commit()
    assert client.post("/sync-dancers/Flow").status_code == 201
    assert client.get("/sync-dancers").json() == ["Ruby", "Flow"]
    assert db_session.scalar(select(func.count(Dancer.id))) == 2


# SQLAlchemy's recipe: one engine for the session, an outer transaction for each test
@pytest.fixture(scope="session")
def shared_engine():
    engine = create_engine(
        "sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool
    )
    # As SQLAlchemy's page on SQLite says: without these two, sqlite3 begins too late
    event.listen(engine, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Dancer(name="Everywhere"))
        session.commit()
    yield engine
    engine.dispose()


@pytest.fixture
def joined_session(shared_engine):
    connection = shared_engine.connect()
    transaction = connection.begin()
    session = Session(bind=connection, join_transaction_mode="create_savepoint")
    yield session
    session.close()
    transaction.rollback()
    connection.close()


@pytest.mark.parametrize("turn", [1, 2])
def test_session_joined_into_an_external_transaction(joined_session, turn):
    assert joined_session.scalars(select(Dancer.name)).all() == ["Everywhere"]
    joined_session.add(Dancer(name="Ruby"))
    joined_session.commit()
    assert joined_session.scalar(select(func.count(Dancer.id))) == 2
"""

FILES = {
    "app.py": APP,
    "tests/__init__.py": "",
    "tests/conftest.py": CONFTEST,
    "tests/test_async.py": TEST_ASYNC,
    "tests/test_sync.py": TEST_SYNC,
}
TESTS = 7
