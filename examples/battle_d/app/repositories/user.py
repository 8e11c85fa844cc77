"""Questions about users."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import User


class UserRepository:
    """Finds users."""

    def __init__(self, session: AsyncSession) -> None:
        """Ask through the given session."""
        self._session = session

    async def find(self, user_id: int) -> User | None:
        """Give the user with this id."""
        return await self._session.get(User, user_id)

    async def find_by_email(self, email: str) -> User | None:
        """Give the user with this address."""
        return await self._session.scalar(select(User).where(User.email == email))
