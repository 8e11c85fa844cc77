"""Suites that override ``get_db`` with one shared session: flush, and roll back at the end.

From the feature specification (§6.1, §6.2, §7.3 and options A and B of its §3), and from the
workbench that followed it: ``async_client_factory`` and ``create_async_tournament``.
"""

__all__ = ["FILES", "TESTS"]

DATABASE = """
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Tournament(Base):
    __tablename__ = "tournaments"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


engine = create_async_engine("sqlite+aiosqlite:///battle_d.db")
async_session_maker = async_sessionmaker(engine, expire_on_commit=False)


async def init_db():
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


async def drop_db():
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
"""

DEPENDENCIES = """
from fastapi import Cookie, HTTPException
from app.db.database import async_session_maker


async def get_db():
    async with async_session_maker() as session:
        yield session


async def get_role(session: str = Cookie("")):
    if not session:
        raise HTTPException(401)
    return session
"""

REPOSITORY = """
from app.db.database import Tournament


class TournamentRepository:
    def __init__(self, session):
        self.session = session

    async def create_tournament(self, name):
        tournament = Tournament(name=name)
        self.session.add(tournament)
        await self.session.flush()
        return tournament

    async def find(self, tournament_id):
        return await self.session.get(Tournament, tournament_id)
"""

MAIN = """
from fastapi import Depends, FastAPI, Form, HTTPException, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from app.dependencies import get_db, get_role
from app.repositories.tournament import TournamentRepository

app = FastAPI()


@app.get("/auth/verify")
async def verify(token: str):
    response = Response(status_code=204)
    response.set_cookie("session", token)
    return response


@app.get("/tournaments/{tournament_id}", response_class=HTMLResponse)
async def show(tournament_id: int, db=Depends(get_db)):
    tournament = await TournamentRepository(db).find(tournament_id)
    if tournament is None:
        raise HTTPException(404)
    return f"<h1>{tournament.name}</h1>"


@app.post("/tournaments/create", dependencies=[Depends(get_role)])
async def create(name: str = Form(), db=Depends(get_db)):
    tournament = await TournamentRepository(db).create_tournament(name)
    await db.commit()
    return RedirectResponse(f"/tournaments/{tournament.id}", 303)
"""

CONFTEST = """
import pytest
import pytest_asyncio
from httpx import ASGITransport, AsyncClient
from starlette.testclient import TestClient
from app.db.database import async_session_maker, drop_db, init_db
from app.dependencies import get_db
from app.main import app
from app.repositories.tournament import TournamentRepository

pytest_plugins = ["tests.e2e.async_conftest"]


@pytest_asyncio.fixture(scope="function", autouse=True)
async def setup_test_database():
    await drop_db()
    await init_db()


@pytest.fixture
def async_session():
    return async_session_maker


# §6.2
@pytest_asyncio.fixture
async def db_session():
    \"\"\"Provide a shared session for the entire test.\"\"\"
    async with async_session_maker() as session:
        yield session
        await session.rollback()  # Clean up without committing


@pytest_asyncio.fixture
async def client(db_session):
    app.dependency_overrides[get_db] = lambda: db_session
    # httpx has no AsyncClient(app=…) any more: the transport takes the app.
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://test") as client:
        yield client
    app.dependency_overrides.clear()


@pytest.fixture
def staff_client():
    client = TestClient(app)
    client.get("/auth/verify", params={"token": "staff"})
    return client
"""

ASYNC_CONFTEST = """
from contextlib import asynccontextmanager
import pytest
import pytest_asyncio
from httpx import ASGITransport, AsyncClient
from app.db.database import async_session_maker
from app.dependencies import get_db
from app.main import app
from app.repositories.tournament import TournamentRepository


@pytest_asyncio.fixture
async def async_e2e_session():
    async with async_session_maker() as session:
        yield session
        await session.rollback()


@pytest.fixture
def async_client_factory(async_e2e_session):
    async def override_get_db():
        yield async_e2e_session

    @asynccontextmanager
    async def factory(role):
        app.dependency_overrides[get_db] = override_get_db
        try:
            transport = ASGITransport(app=app)
            async with AsyncClient(transport=transport, base_url="http://test") as client:
                await client.get("/auth/verify", params={"token": role})
                yield client
        finally:
            app.dependency_overrides.clear()

    return factory


@pytest.fixture
def create_async_tournament(async_e2e_session):
    async def create(name):
        return await TournamentRepository(async_e2e_session).create_tournament(name)

    return create
"""

TEST_SESSION_ISOLATION_FIX = """
import pytest
from httpx import ASGITransport, AsyncClient
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.main import app
from app.dependencies import get_db
from app.db.database import Tournament, async_session_maker
from app.repositories.tournament import TournamentRepository


# §7.3. Not as its comment says: leaving `session.begin()` without an error commits.
@pytest.fixture
async def test_session():
    \"\"\"Shared session for test and routes.\"\"\"
    async with async_session_maker() as session:
        async with session.begin():
            yield session
            # Rollback happens automatically

@pytest.mark.asyncio
async def test_tournament_workflow(test_session: AsyncSession):
    \"\"\"E2E test with fixture-created data.\"\"\"
    # Override get_db to use test session
    async def override_get_db():
        yield test_session

    app.dependency_overrides[get_db] = override_get_db

    try:
        # Create test data
        repo = TournamentRepository(test_session)
        tournament = await repo.create_tournament("E2E Test Tournament")
        await test_session.flush()

        # Make HTTP request - will use same session!
        # (printed as AsyncClient(app=app, …), which httpx has no more)
        async with AsyncClient(transport=ASGITransport(app=app), base_url="http://test") as client:
            response = await client.get(f"/tournaments/{tournament.id}")
            assert response.status_code == 200
            assert b"E2E Test Tournament" in response.content
    finally:
        app.dependency_overrides.clear()


# §6.1
@pytest.mark.asyncio
async def test_view_tournament(async_session):
    async with async_session() as session:
        # Create data in THIS session
        repo = TournamentRepository(session)
        tournament = await repo.create_tournament("Test")
        await session.flush()  # Make visible within transaction

        # Override get_db to return THIS session
        async def get_test_db():
            yield session

        app.dependency_overrides[get_db] = get_test_db

        try:
            transport = ASGITransport(app=app)
            async with AsyncClient(transport=transport, base_url="http://test") as client:
                response = await client.get(f"/tournaments/{tournament.id}")
                assert response.status_code == 200
        finally:
            app.dependency_overrides.clear()


# §3, option A
@pytest.mark.asyncio
async def test_tournament_view(async_session):
    async with async_session() as session:
        tournament = await TournamentRepository(session).create_tournament("Test")
        await session.commit()
        app.dependency_overrides[get_db] = lambda: session
        transport = ASGITransport(app=app)
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.get(f"/tournaments/{tournament.id}")
            assert response.status_code == 200
    app.dependency_overrides.clear()


# §3, option B
def test_tournament_view_over_http(staff_client):
    response = staff_client.post(
        "/tournaments/create", data={"name": "Test"}, follow_redirects=False
    )
    assert response.status_code == 303
    response = staff_client.get(response.headers["location"])
    assert response.status_code == 200


# §6.2, twice: what was flushed and rolled back is gone
@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.asyncio
async def test_shared_session_fixture(db_session, client, turn):
    assert await db_session.scalar(select(func.count(Tournament.id))) == 0
    tournament = await TournamentRepository(db_session).create_tournament("Test")
    assert (await client.get(f"/tournaments/{tournament.id}")).status_code == 200
"""

TEST_EVENT_MODE_ASYNC = """
import pytest


# The workbench's usage pattern
@pytest.mark.asyncio
async def test_with_fixture_data(async_client_factory, create_async_tournament):
    # Create data in shared session
    tournament = await create_async_tournament(name="Test")

    # Make HTTP request - sees fixture data!
    async with async_client_factory("staff") as client:
        response = await client.get(f"/tournaments/{tournament.id}")
        assert response.status_code == 200


@pytest.mark.parametrize("role", ["admin", "staff", "mc", "judge"])
@pytest.mark.asyncio
async def test_what_a_role_commits_is_in_the_shared_session(
    async_client_factory, async_e2e_session, role
):
    async with async_client_factory(role) as client:
        response = await client.post("/tournaments/create", data={"name": role})
        assert response.status_code == 303
        assert role in (await client.get(response.headers["location"])).text
"""

FILES = {
    "app/__init__.py": "",
    "app/db/__init__.py": "",
    "app/db/database.py": DATABASE,
    "app/dependencies.py": DEPENDENCIES,
    "app/repositories/__init__.py": "",
    "app/repositories/tournament.py": REPOSITORY,
    "app/main.py": MAIN,
    "conftest.py": CONFTEST,
    "tests/__init__.py": "",
    "tests/e2e/__init__.py": "",
    "tests/e2e/async_conftest.py": ASYNC_CONFTEST,
    "tests/e2e/test_session_isolation_fix.py": TEST_SESSION_ISOLATION_FIX,
    "tests/e2e/test_event_mode_async.py": TEST_EVENT_MODE_ASYNC,
}
TESTS = 11
