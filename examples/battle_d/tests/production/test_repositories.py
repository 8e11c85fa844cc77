"""What the repositories ask and add, each over a session of its own."""

import pytest
from sqlalchemy.exc import IntegrityError

from app.db.database import async_session_maker
from app.models import BattleStatus, Phase, Role
from app.repositories import (
    BattleRepository,
    DancerRepository,
    TournamentRepository,
    UserRepository,
)
from tests.factories import a_battle, a_category, a_dancer, a_tournament, pending_battles, save


class TestUserRepository:
    """Users are known by their address."""

    async def test_committed_user_is_found_by_another_session(self) -> None:
        """A user whom one session committed is found by the next one, by address and by id."""
        async with async_session_maker() as session:
            created = await UserRepository(session).create_user("a@b.example", "Ada", Role.ADMIN)
            await session.commit()

        async with async_session_maker() as session:
            repository = UserRepository(session)
            by_email = await repository.find_by_email("a@b.example")
            assert by_email
            assert by_email is await repository.find(created.id)
            assert (by_email.name, by_email.role) == ("Ada", Role.ADMIN)

    async def test_nobody_is_there_at_first(self) -> None:
        """Not even the users that every other test of the project starts with."""
        async with async_session_maker() as session:
            assert await UserRepository(session).find_by_email("admin@battle-d.example") is None

    async def test_address_belongs_to_one_user(self) -> None:
        """A second user with the same address is refused by the database."""
        async with async_session_maker() as session:
            repository = UserRepository(session)
            await repository.create_user("a@b.example", "Ada", Role.ADMIN)

            with pytest.raises(IntegrityError, match="email"):
                await repository.create_user("a@b.example", "Ben", Role.MC)


class TestTournamentRepository:
    """Tournaments come whole, or as a list."""

    async def test_new_tournament_is_in_its_registration(self) -> None:
        """A tournament that is created by its name alone has an id and the first phase."""
        async with async_session_maker() as session:
            tournament = await TournamentRepository(session).create_tournament("Spring Jam")

            assert tournament.id
            assert tournament.phase is Phase.REGISTRATION

    async def test_whole_tournament_can_be_read_without_a_session(self) -> None:
        """Names and titles can be read when the session that found them is closed."""
        category = a_category(blazes=["Ruby", "Flow"])
        async with async_session_maker() as session:
            made = await save(session, a_tournament(category))
            await save(session, a_battle(category.performers))

        async with async_session_maker() as session:
            found = await TournamentRepository(session).find(made.id)

        assert found
        assert [each.dancer.blaze for each in found.categories[0].performers] == ["Ruby", "Flow"]
        assert [battle.title for battle in found.battles] == ["Ruby vs Flow"]

    async def test_latest_tournament_comes_first(self) -> None:
        """The list begins with the tournament that was created last."""
        async with async_session_maker() as session:
            repository = TournamentRepository(session)
            for name in ("Spring Jam", "Summer Jam"):
                await repository.create_tournament(name)
            await session.commit()

            assert [each.name for each in await repository.all()] == ["Summer Jam", "Spring Jam"]


class TestDancerRepository:
    """Dancers are looked for by any of their names."""

    @pytest.mark.parametrize("words,found", [("DANCER", ["Flow", "Ruby"]), ("%", [])])
    async def test_search_knows_parts_of_names(self, words: str, found: list[str]) -> None:
        """Case means nothing to a search, and a wildcard is a character like any other."""
        async with async_session_maker() as session:
            session.add_all([a_dancer("Ruby"), a_dancer("Flow")])
            await session.commit()

            dancers = await DancerRepository(session).search(words)

        assert [dancer.blaze for dancer in dancers] == found


class TestBattleRepository:
    """The battle on the floor is that of its tournament."""

    async def test_active_battle_is_that_of_the_tournament(self) -> None:
        """Of two tournaments with an active battle each, each has its own."""
        categories = [a_category(performers=2), a_category(performers=2)]
        async with async_session_maker() as session:
            session.add_all(a_tournament(category) for category in categories)
            battles = [battle for category in categories for battle in pending_battles(category)]
            for battle in battles:
                battle.status = BattleStatus.ACTIVE
            session.add_all(battles)
            await session.commit()

            repository = BattleRepository(session)
            found = [await repository.find_active(each.tournament_id) for each in categories]

        assert found == battles
