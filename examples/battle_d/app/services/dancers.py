"""Dancers, whatever the tournament."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import RuleBrokenError
from app.models import Dancer
from app.repositories import DancerRepository


class DancerService:
    """Lists dancers and takes new ones in."""

    def __init__(self, session: AsyncSession) -> None:
        """Work in the given session."""
        self._session = session
        self._dancers = DancerRepository(session)

    async def all(self) -> Sequence[Dancer]:
        """Give every dancer, by blaze."""
        return await self._dancers.all()

    async def create(self, dancer: Dancer) -> Dancer:
        """Take a dancer in, whose address nobody else has."""
        if await self._dancers.find_by_email(dancer.email):
            reason = f"{dancer.email} already belongs to a dancer."
            raise RuleBrokenError(reason)
        self._session.add(dancer)
        await self._session.commit()
        return dancer
