"""Dancers, whatever the tournament."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import NotFoundError, RuleBrokenError
from app.models import Dancer
from app.repositories import DancerRepository


class DancerService:
    """Lists dancers, takes new ones in and corrects what was written about them."""

    def __init__(self, session: AsyncSession) -> None:
        """Work in the given session."""
        self._session = session
        self._dancers = DancerRepository(session)

    async def all(self) -> Sequence[Dancer]:
        """Give every dancer, by blaze."""
        return await self._dancers.all()

    async def search(self, words: str) -> Sequence[Dancer]:
        """Give the dancers one of whose names has these words in it, by blaze."""
        return await self._dancers.search(words.strip())

    async def load(self, dancer_id: int) -> Dancer:
        """Give the dancer, or say that there is none."""
        dancer = await self._dancers.find(dancer_id)
        if dancer is None:
            reason = f"There is no dancer {dancer_id}."
            raise NotFoundError(reason)
        return dancer

    async def create(self, dancer: Dancer) -> Dancer:
        """Take a dancer in, whose address nobody else has."""
        await self._check_free(dancer.email)
        self._session.add(dancer)
        await self._session.commit()
        return dancer

    async def change(
        self, dancer_id: int, *, email: str, first_name: str, last_name: str, blaze: str
    ) -> Dancer:
        """Write down anew who a dancer is; the address still belongs to nobody else."""
        dancer = await self.load(dancer_id)
        if email != dancer.email:
            await self._check_free(email)
        dancer.email, dancer.blaze = email, blaze
        dancer.first_name, dancer.last_name = first_name, last_name
        await self._session.commit()
        return dancer

    async def _check_free(self, email: str) -> None:
        if await self._dancers.find_by_email(email):
            reason = f"{email} already belongs to a dancer."
            raise RuleBrokenError(reason)
