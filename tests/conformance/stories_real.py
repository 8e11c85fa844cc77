"""Stories of suites in which all goes well: P3, real transactions, and P5, any event loop.

They may run in any order, as those of `_stories_kept`.
"""

from __future__ import annotations

__all__ = ["LOOPS", "REAL", "SYNC_AND_CASES"]

REAL = """
import pytest
from app import Dancer, Score, StaleDataError, app, engine, get_db, maker, other_maker
from hand import add, lacks, names, standing, together
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
# runner


async def load(session, name="Sand"):
    return await session.scalar(select(Dancer).where(Dancer.name == name))


async def test_p3_a_forgotten_commit_stays_invisible(client):
    await client.post("/forgetful/nobody")
    assert (await client.get("/dancers")).json() == standing()
    async with maker() as session:
        session.add(Dancer(name="nobody"))
        await session.flush()
        assert "nobody" in list(await session.scalars(select(Dancer.name)))
    assert await names() == standing() == await names(other_maker)


async def test_p3_commit_and_rollback(backend):
    async with maker() as session:
        session.add(Dancer(name="kept"))
        await session.commit()
        session.add(Dancer(name="dropped"))
        await session.flush()
        await session.rollback()
        session.add(Dancer(name="kept too"))
        await session.commit()
    assert await names(other_maker) == [*standing(), "kept", "kept too"]


async def test_p3_savepoints(backend):
    async with maker() as session:
        session.add(Dancer(name="outer"))
        await session.flush()
        async with await session.begin_nested() as savepoint:
            session.add(Dancer(name="inner"))
            await session.flush()
            await savepoint.rollback()
        await session.commit()
    assert await names(other_maker) == [*standing(), "outer"]


@lacks("several connections")
async def test_p3_two_transactions_do_not_see_each_other(backend):
    async with maker() as writer, other_maker() as reader:
        writer.add(Dancer(name="not yet"))
        await writer.flush()
        assert "not yet" not in list(await reader.scalars(select(Dancer.name)))
        await reader.rollback()
        await writer.commit()
        assert "not yet" in list(await reader.scalars(select(Dancer.name)))


async def test_p3_constraints_at_their_time(backend):
    async with maker() as session:
        session.add(Dancer(name="Sand"))
        with pytest.raises(IntegrityError):
            await session.flush()
        await session.rollback()
        session.add(Score(dancer_id=1, round=9, points=-1))
        with pytest.raises((IntegrityError, OperationalError)):  # MariaDB's word for it
            await session.flush()
        await session.rollback()
        session.add(Score(dancer_id=4711, round=1, points=1))
        with pytest.raises(IntegrityError):
            await session.commit()
    assert await names() == standing()


@lacks("several connections")
async def test_p3_optimistic_locking_pitfall_133(backend):
    async with maker() as one, other_maker() as two:
        first, second = await load(one), await load(two)
        await one.commit()
        await two.commit()
        first.style, second.style = "power", "footwork"
        first.name, second.name = "First", "Second"
        await one.commit()
        with pytest.raises(StaleDataError):
            await two.commit()
        await two.rollback()
    assert "First" in await names() and "Second" not in await names()


@lacks("several connections")
async def test_p3_a_race_for_one_name_pitfall_134(client, new_client):
    calls = [lambda one=one: one.post("/dancers/unique") for one in (client, new_client())]
    answers = await together(*calls)
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    assert await names() == [*standing(), "unique"]


async def test_p3_overrides_and_a_shared_session(client):
    async with engine.connect() as connection:
        outer = await connection.begin()
        await connection.execute(insert(Dancer).values(name="outer", style="", version=1))
        session = AsyncSession(
            bind=connection, join_transaction_mode="create_savepoint", expire_on_commit=False
        )
        app.dependency_overrides[get_db] = lambda: session
        try:
            session.add(Dancer(name="shared"))
            await session.commit()
            answer = await client.get("/dancers")
            assert answer.json() == [*standing(), "outer", "shared"]
            assert (await client.post("/dancers/of a request")).status_code == 201
        finally:
            app.dependency_overrides.clear()
            await session.close()
            await outer.rollback()
    assert await names() == standing()
"""

LOOPS = """
import asyncio
import threading
import pytest
from app import app, engine, maker
from fastapi.testclient import TestClient
from hand import add, lacks, names, standing, together
# runner


# As many as it takes for somebody to wait, in one loop after the other.
@pytest.mark.parametrize("turn", [1, 2, 3])
async def test_p5_waiting_for_the_pool(client, turn):
    calls = [lambda n=n: client.get("/dancers") for n in range(25)]
    assert {answer.status_code for answer in await together(*calls)} == {200}


@pytest.mark.parametrize("turn", [1, 2])
async def test_p5_a_loop_in_a_thread(client, turn):
    await add("the test's")
    def work():
        asyncio.run(add("a thread's"))
        return asyncio.run(names())
    both = [*standing(), "the test's", "a thread's"]
    assert await asyncio.to_thread(work) == both
    assert (await client.get("/dancers")).json() == both


@lacks("waiting in loops")
async def test_p5_loops_at_the_same_time(client):
    found = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(names()))) for _ in "12"]
    for thread in threads:
        thread.start()
    await together(*[lambda: client.get("/dancers")] * 5)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert found == [standing()] * 2


@pytest.mark.parametrize("turn", [1, 2])
async def test_p5_the_sync_client_inside_a_coroutine(client, test_client, turn):
    await client.post("/dancers/async")
    assert test_client.post("/dancers/sync").status_code == 201
    assert (await client.get("/dancers")).json() == [*standing(), "async", "sync"]


async def test_p5_a_loop_for_each_request_pitfall_007(backend):
    bare = TestClient(app)
    for number in range(5):
        assert bare.post(f"/dancers/{number}").status_code == 201
    assert len(await names()) == len(standing()) + 5


async def test_p5_disposed_of_and_used_again_pitfall_013(client):
    await engine.dispose()
    await client.post("/dancers/new")
    await engine.dispose()
    assert await names() == [*standing(), "new"]
"""

SYNC_AND_CASES = """
import unittest
import asyncio
from hand import add, names, standing


class TestCase(unittest.IsolatedAsyncioTestCase):
    async def test_p5_a_loop_of_unittests_pitfall_009(self):
        await add("of a case")
        assert await names() == [*standing(), "of a case"]

    async def test_p5_and_another(self):
        assert await names() == standing()


def test_p5_a_sync_test(test_client):
    assert test_client.post("/dancers/sync").status_code == 201
    assert asyncio.run(names()) == [*standing(), "sync"]
"""
