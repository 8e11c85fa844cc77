"""Questions about dancers."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Dancer


class DancerRepository:
    """Finds dancers."""

    def __init__(self, session: AsyncSession) -> None:
        """Ask through the given session."""
        self._session = session

    async def find(self, dancer_id: int) -> Dancer | None:
        """Give the dancer with this id."""
        return await self._session.get(Dancer, dancer_id)

    async def find_by_email(self, email: str) -> Dancer | None:
        """Give the dancer with this address."""
        return await self._session.scalar(select(Dancer).where(Dancer.email == email))

    async def all(self) -> Sequence[Dancer]:
        """Give every dancer, by blaze."""
        return (await self._session.scalars(select(Dancer).order_by(Dancer.blaze))).all()
