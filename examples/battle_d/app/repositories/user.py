"""Questions about users, and new ones."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Role, User


class UserRepository:
    """Finds users and adds them; whoever uses it commits."""

    def __init__(self, session: AsyncSession) -> None:
        """Ask through the given session."""
        self._session = session

    async def create_user(self, email: str, name: str, role: Role) -> User:
        """Add a user and give it an id."""
        user = User(email=email, name=name, role=role)
        self._session.add(user)
        await self._session.flush()
        return user

    async def find(self, user_id: int) -> User | None:
        """Give the user with this id."""
        return await self._session.get(User, user_id)

    async def find_by_email(self, email: str) -> User | None:
        """Give the user with this address."""
        return await self._session.scalar(select(User).where(User.email == email))
