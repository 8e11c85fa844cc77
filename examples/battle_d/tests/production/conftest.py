"""What once emptied a developer's database: every test drops all tables and makes them anew.

The suites of this folder import `async_session_maker` from `app.db.database`, as a team wrote them
that knew no other. They are left as they are. The tables that they drop are those of the test.
"""

from collections.abc import Iterator

import pytest
import pytest_asyncio
from starlette.testclient import TestClient

from app.db.database import async_session_maker, drop_db, init_db
from app.main import app
from app.models import Role
from app.repositories import UserRepository
from tests.login import log_in
from tests.seed import email_of


@pytest_asyncio.fixture(scope="function", autouse=True)
async def setup_test_database() -> None:
    """Every test begins with all tables, and with no row in them."""
    await drop_db()
    await init_db()


@pytest.fixture
async def users(setup_test_database: None) -> None:
    """A user of each role, committed by a session that is closed when the test begins."""
    async with async_session_maker() as session:
        repository = UserRepository(session)
        for role in Role:
            await repository.create_user(email_of(role), f"The {role.name.title()}", role)
        await session.commit()


@pytest.fixture
def client(users: None) -> Iterator[TestClient]:
    """Starlette's own test client on the unmodified app, its lifespan run."""
    with TestClient(app) as client:
        yield client


@pytest.fixture
def staff_client(client: TestClient) -> TestClient:
    """That client, logged in as the staff."""
    log_in(client, "staff")
    return client
