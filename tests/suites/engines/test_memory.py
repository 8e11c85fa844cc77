"""Each engine in memory has a database of its own."""

from models import Base
from orders import aadd, add, aitems, items
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import SingletonThreadPool, StaticPool

SHARED = "mode=memory&cache=shared&uri=true"
by_name = {"poolclass": SingletonThreadPool}
static = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
plain = create_engine("sqlite:///:memory:")
of_a_loop = create_async_engine("sqlite+aiosqlite://")
named = create_engine(f"sqlite:///file:shared?{SHARED}", **by_name)
named_async = create_async_engine(f"sqlite+aiosqlite:///file:shared?{SHARED}", poolclass=StaticPool)
other_name = create_engine(f"sqlite:///file:other?{SHARED}", **by_name)
for each in (static, plain, named, other_name):
    Base.metadata.create_all(each)


def test_sync_engines(turn):
    add(static, "static")
    add(plain, "plain")
    add(other_name, "other")
    assert [items(static), items(plain), items(other_name)] == [["static"], ["plain"], ["other"]]


async def test_an_async_engine(turn):
    async with of_a_loop.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await aadd(of_a_loop, "vase")
    assert await aitems(of_a_loop) == ["vase"]


async def test_engines_of_one_name_share_a_database(turn):
    await aadd(named_async, "async")
    add(named, "sync")
    assert items(named) == await aitems(named_async) == ["async", "sync"]
