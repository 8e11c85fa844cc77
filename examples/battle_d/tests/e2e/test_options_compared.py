"""One test, written in four ways: three ways out of session isolation, and none needed.

The test: a battle waits in the queue, the MC starts it, and the command center shows it on the
floor. All four are green here. What they would notice differs, and so does what they leave behind
in a database that nobody rakes: each class says it. Take the commit out of the app's start, for
example: two of the four stay green.
"""

import re
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import pytest
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.database import async_session_maker, engine, get_db
from app.main import app
from app.models import Battle, BattleStatus, Tournament
from tests.factories import a_category, a_tournament, pending_battles
from tests.login import log_in
from tests.pages import battle_cards

Row = TypeVar("Row", Battle, Tournament)


@pytest.mark.usefixtures("override_get_db")
class TestOptionA:
    """The routes get the session of the test, by an override of `get_db`.

    It can prove what a route answers, and does, for any state of the database.

    It cannot prove that the app commits: a row that nobody committed is there for every request.
    Nor that a request works with a session of its own: what a route should have loaded may only
    be there because the test has it. Nor that two requests at once get along: a session serves
    one at a time. And where a route does commit, the rollback at the end takes nothing back.
    """

    async def test_started_battle_is_on_the_floor(self, test_session: AsyncSession) -> None:
        """With one session for all, the started battle is on the floor."""
        battle = await _flush_a_queue(test_session)

        async with _open_client() as mc:
            await log_in(mc, "mc")
            page = await mc.post(f"/battles/{battle.id}/start", follow_redirects=True)

        assert battle.title in _on_the_floor(page.text)

    async def test_page_shows_what_nobody_committed(self, test_session: AsyncSession) -> None:
        """The blind spot: a page shows a tournament that is there for no other session."""
        battle = await _flush_a_queue(test_session)

        async with _open_client() as visitor:
            page = await visitor.get(f"/tournaments/{battle.tournament_id}")

        assert page.status_code == 200
        assert await _find_elsewhere(Tournament, battle.tournament_id) is None


class TestOptionB:
    """The test makes everything over HTTP, and takes the ids from the redirects.

    It can prove that the app works as a whole, from form to page, with its own sessions and
    commits.

    It cannot begin where no form leads: a battle of an earlier phase, a user without a name, a
    thousand performers. Fourteen requests come before the one that matters; where one of them
    breaks, this test fails too. And all that it made stays in the database.
    """

    async def test_started_battle_is_on_the_floor(self) -> None:
        """After registration, draw and start over HTTP, the started battle is on the floor."""
        async with _open_client() as staff, _open_client() as mc:
            await log_in(staff, "staff")
            await log_in(mc, "mc")
            tournament = await _create_over_http(staff, blazes=["Ruby", "Flow", "Storm"])
            [battle_id] = _find_ids("battle-", (await mc.get(f"/event/{tournament}")).text)

            page = await mc.post(f"/battles/{battle_id}/start", follow_redirects=True)

        assert "Ruby vs Flow vs Storm" in _on_the_floor(page.text)


class TestOptionC:
    """All is one transaction, which is rolled back at the end; the app's commit is a savepoint.

    It can prove what the first option can, and leaves nothing behind, whatever a route commits.

    It cannot prove anything about a real commit: what a second connection sees, what a deferred
    constraint says, which of two starts at the same moment wins. The one connection belongs to
    one event loop and serves one request at a time.
    """

    @pytest.fixture
    async def joined_session(self) -> AsyncIterator[AsyncSession]:
        """A session inside a transaction that it cannot end, for the test and the routes."""
        async with engine.connect() as connection:
            outer = await connection.begin()
            if engine.dialect.name == "sqlite":
                # Its driver begins a transaction at the first write. A savepoint that comes
                # before would be the outermost, and to release that one is to commit.
                await connection.exec_driver_sql("BEGIN")
            async with AsyncSession(
                connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
            ) as session:
                app.dependency_overrides[get_db] = lambda: session
                yield session
                app.dependency_overrides.clear()
            await outer.rollback()

    async def test_started_battle_is_on_the_floor(self, joined_session: AsyncSession) -> None:
        """Inside one transaction, the started battle is on the floor, and only there."""
        battle = await _flush_a_queue(joined_session)

        async with _open_client() as mc:
            await log_in(mc, "mc")
            page = await mc.post(f"/battles/{battle.id}/start", follow_redirects=True)

        assert battle.title in _on_the_floor(page.text)
        assert await _find_elsewhere(Battle, battle.id) is None


class TestPluginAlone:
    """No override and no transaction around it: the app uses its own sessions and commits.

    It can prove what the three others can, each of them, and also what a second connection sees.
    Whatever was committed is taken back when the test ends.

    It cannot prove more than its database can: where production runs on another, run it there.
    """

    async def test_started_battle_is_on_the_floor(
        self, db_session: AsyncSession, client_as: Callable[[str], AsyncClient]
    ) -> None:
        """The started battle is on the floor, and every other session finds it there."""
        battle = await _flush_a_queue(db_session)

        page = await client_as("mc").post(f"/battles/{battle.id}/start", follow_redirects=True)

        assert battle.title in _on_the_floor(page.text)
        found = await _find_elsewhere(Battle, battle.id)
        assert found
        assert found.status is BattleStatus.ACTIVE


def _open_client() -> AsyncClient:
    """Give the HTTP library's own client, on the app in this process."""
    return AsyncClient(transport=ASGITransport(app), base_url="http://test")


async def _flush_a_queue(session: AsyncSession) -> Battle:
    """Write a tournament in its preselection, and give the last battle of its queue."""
    category = a_category(performers=4)
    session.add(a_tournament(category))
    session.add_all(battles := pending_battles(category))
    await session.flush()
    return battles[-1]


async def _create_over_http(staff: AsyncClient, *, blazes: list[str]) -> int:
    """Fill in every form that lies before a drawn preselection, and give the tournament's id."""
    created = await staff.post("/tournaments/create", data={"name": "HTTP Jam"})
    address = created.headers["location"]
    await staff.post(f"{address}/categories", data={"name": "House 1v1", "places": "2"})
    [category_id] = _find_ids("category-", (await staff.get(address)).text)
    for blaze in blazes:
        person = {"first_name": "Dancer", "last_name": blaze, "email": f"{blaze}@dancers.example"}
        await staff.post("/dancers/create", data={"blaze": blaze, **person})
        found = await staff.get("/dancers", params={"q": blaze})
        [dancer_id] = re.findall(r"/dancers/(\d+)/edit", found.text)
        await staff.post(
            f"{address}/categories/{category_id}/performers", data={"dancer_id": dancer_id}
        )
    drawn = await staff.post(f"{address}/advance")
    assert drawn.status_code == 303, drawn.text
    return int(address.rpartition("/")[2])


def _find_ids(prefix: str, html: str) -> list[str]:
    """Read the numbers in the ids of a page's elements."""
    return re.findall(rf'id="{prefix}(\d+)"', html)


def _on_the_floor(html: str) -> str:
    """Give the card of the battle that is danced now."""
    [active] = [card for card in battle_cards(html) if 'data-status="ACTIVE"' in card]
    return active


async def _find_elsewhere(kind: type[Row], row_id: int) -> Row | None:
    """Look for a row over a connection of its own, as any other visitor of the app would."""
    async with async_session_maker() as other:
        return await other.get(kind, row_id)
