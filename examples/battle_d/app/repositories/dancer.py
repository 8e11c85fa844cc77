"""Questions about dancers."""

from collections.abc import Sequence

from sqlalchemy import or_, select
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

    async def search(self, words: str) -> Sequence[Dancer]:
        """Give the dancers one of whose names contains the words, in any case, by blaze."""
        names = (Dancer.blaze, Dancer.first_name, Dancer.last_name)
        named_so = or_(*(name.icontains(words, autoescape=True) for name in names))
        found = select(Dancer).where(named_so).order_by(Dancer.blaze)
        return (await self._session.scalars(found)).all()
