"""Who asks in these tests, and what a new test does not find in the process's memory."""

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from api_keys.models import Scope
from api_keys.rate_limit import limiter
from tests.holders import Holder, a_holder


@pytest.hookimpl(optionalhook=True)  # nobody calls it where pytest-arena is switched off
def pytest_arena_enter() -> None:
    """Begin to count anew: the database is as it was, the rate limiter is not in it."""
    limiter.reset()


@pytest.fixture
async def admin(db_session: AsyncSession) -> Holder:
    """Somebody who may make and see keys; their own was there before the first request."""
    return await _saved(db_session, a_holder("admin", Scope.KEYS_READ, Scope.KEYS_WRITE))


@pytest.fixture
async def analyst(db_session: AsyncSession) -> Holder:
    """Somebody who may ask for documents, and nothing else."""
    return await _saved(db_session, a_holder("analyst", Scope.QUERY))


async def _saved(session: AsyncSession, holder: Holder) -> Holder:
    session.add(holder.key)
    await session.commit()
    return holder
