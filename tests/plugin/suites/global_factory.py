"""Suites around a global session factory that ``init_db()`` of the lifespan makes.

From the deep dive into test infrastructure: the flag ``_db_initialized`` with the factory that the
routes use, and its "Option A", ``init_db()`` and ``dispose_db()`` around every test, with
``DATABASE_URL`` set in mid-run. PostgreSQL there, a file of SQLite here.
"""

__all__ = ["EVERY_TEST", "TESTS"]

DATABASE = """
import os
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class ApiKey(Base):
    __tablename__ = "api_keys"
    key: Mapped[str] = mapped_column(primary_key=True)


_engine = None
_session_factory = None


async def init_db():
    global _engine, _session_factory
    _engine = create_async_engine(os.environ["DATABASE_URL"])
    _session_factory = async_sessionmaker(_engine, expire_on_commit=False)
    async with _engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


async def dispose_db():
    global _engine, _session_factory
    if _engine is not None:
        await _engine.dispose()
    _engine = _session_factory = None


def get_session_factory():
    if _session_factory is None:
        raise RuntimeError("Database session factory not initialized")
    return _session_factory
"""

MAIN = """
from contextlib import asynccontextmanager
from fastapi import Depends, FastAPI, Header, HTTPException
from app.database import ApiKey, dispose_db, get_session_factory, init_db


@asynccontextmanager
async def lifespan(app):
    await init_db()
    yield
    await dispose_db()


app = FastAPI(lifespan=lifespan)


async def get_db():
    async with get_session_factory()() as session:
        yield session


@app.get("/query")
async def query(x_api_key: str = Header(), db=Depends(get_db)):
    if await db.get(ApiKey, x_api_key) is None:
        raise HTTPException(401)
    return "ok"


@app.post("/keys/{key}", status_code=201)
async def add_key(key: str, db=Depends(get_db)):
    db.add(ApiKey(key=key))
    await db.commit()
"""

IMPORTS = """
import os
import pytest_asyncio
from httpx import ASGITransport, AsyncClient
from sqlalchemy import text
from app.database import dispose_db, get_session_factory, init_db
from app.main import app


# ASGITransport does not run the lifespan: the conftest calls init_db() itself.
@pytest_asyncio.fixture
async def client(ensure_database):
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://test") as client:
        yield client


@pytest_asyncio.fixture(scope="function")
async def db_session(ensure_database):
    \"\"\"Use the SAME global factory as the app\"\"\"
    session_factory = get_session_factory()  # SAME as routes use
    async with session_factory() as session:
        # Clean tables
        await session.execute(text("DELETE FROM api_keys"))
        await session.commit()
        yield session
"""

EVERY_TEST_CONFTEST = (
    IMPORTS
    + """

@pytest_asyncio.fixture(scope="function", autouse=True)
async def ensure_database():
    os.environ["DATABASE_URL"] = "sqlite+aiosqlite:///e2e.db"
    await init_db()  # Every test
    yield
    await dispose_db()  # Every test - fresh start
"""
)

TEST_API_KEYS = """
import pytest
from sqlalchemy import func, select
from app.database import ApiKey


@pytest.mark.parametrize("turn", [1, 2, 3])
@pytest.mark.asyncio
async def test_route_sees_the_key_of_the_session(db_session, client, turn):
    assert await db_session.scalar(select(func.count(ApiKey.key))) == 0
    db_session.add(ApiKey(key="secret"))
    await db_session.commit()
    assert (await client.get("/query", headers={"X-API-Key": "secret"})).status_code == 200
    assert (await client.get("/query", headers={"X-API-Key": "other"})).status_code == 401


@pytest.mark.asyncio
async def test_session_sees_the_key_of_the_route(db_session, client):
    assert (await client.post("/keys/secret")).status_code == 201
    assert await db_session.scalar(select(func.count(ApiKey.key))) == 1
"""

APP = {"app/__init__.py": "", "app/database.py": DATABASE, "app/main.py": MAIN}
EVERY_TEST = {**APP, "conftest.py": EVERY_TEST_CONFTEST, "test_api_keys.py": TEST_API_KEYS}
TESTS = 4
