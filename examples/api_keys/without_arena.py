"""What the tests were given before they had arena: the conftest that the team had arrived at.

The demo loads this file where it switches arena off (`-p no:arena -p without_arena`), so that the
same tests find the same names. With arena nobody writes it.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest
import pytest_asyncio
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.testclient import TestClient

from api_keys.database import get_session_factory, init_db
from api_keys.main import app
from api_keys.models import ApiKey, Document
from api_keys.rate_limit import limiter
from tests.seed import seed

_db_initialized = False  # Module-level flag


@pytest_asyncio.fixture(scope="function", autouse=True)
async def ensure_database() -> None:
    """Initialize the global session factory once: the client does not run the lifespan."""
    global _db_initialized  # noqa: PLW0603 - this is how the team had it
    if not _db_initialized:
        await init_db()  # Sets up GLOBAL factory
        _db_initialized = True


@pytest_asyncio.fixture(scope="function")
async def db_session() -> AsyncIterator[AsyncSession]:
    """A session of the same global factory that the routes use, on clean tables."""
    session_factory = get_session_factory()  # SAME as routes use
    async with session_factory() as session:
        await session.execute(delete(ApiKey))
        await session.execute(delete(Document))
        await seed(session)
        await session.commit()
        yield session


@pytest_asyncio.fixture(scope="function")
async def client() -> AsyncIterator[AsyncClient]:
    """A client in this process; its transport does not run the lifespan."""
    transport = ASGITransport(app=app)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def test_client() -> Iterator[TestClient]:
    """A sync client, which does run the lifespan."""
    with TestClient(app) as client:
        yield client


@pytest.fixture(autouse=True)
def reset_limiter() -> None:
    """Begin to count anew."""
    limiter.reset()


class Scenario:
    """Step blocks that nobody looks at."""

    def given(self, _text: str) -> AbstractContextManager[None]:
        """Return a block of a test."""
        return nullcontext()

    when = then = given


@pytest.fixture
def scenario() -> Scenario:
    """What arena's fixture of this name is for the tests."""
    return Scenario()
