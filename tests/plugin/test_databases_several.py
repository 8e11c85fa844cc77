"""An app with several databases: each is one of the arena's own, whoever names it and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.developer import small_example, untouched

if TYPE_CHECKING:
    from pathlib import Path


APP = """
from pathlib import Path
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

class ShopBase(DeclarativeBase):
    pass

class AnalyticsBase(DeclarativeBase):
    pass

class Order(ShopBase):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)

class Visit(AnalyticsBase):
    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)

shop = create_engine("sqlite:///shop.db")
analytics = create_async_engine("sqlite+aiosqlite:///analytics.db")
analytics_sync = create_engine(f"sqlite:///{Path('analytics.db').absolute()}")
replica = create_engine("sqlite:///file:./shop.db?mode=ro&uri=true")

def seed_shop(session):
    session.add_all([Order(id=1), Order(id=2)])

async def seed_analytics(session):
    session.add(Visit(id=1))

def new_session():
    return Session(binds={ShopBase: shop, AnalyticsBase: analytics_sync})
"""

CONFIG = """
[pytest]
arena_schema =
    shop = app:ShopBase
    analytics = app:AnalyticsBase
arena_seed =
    shop = app:seed_shop
    analytics = app:seed_analytics
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
pythonpath = .
"""

TESTS = """
from contextlib import asynccontextmanager
import pytest
from sqlalchemy import create_engine, delete, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from app import Order, Visit, analytics, analytics_sync, new_session, replica, shop
from pytest_arena.errors import ConfigError

def counts():
    with new_session() as session:
        return [session.scalar(select(func.count(one.id))) for one in (Order, Visit)]

@pytest.mark.parametrize("turn", [1, 2])
async def test_each_is_seeded_by_its_own_line_and_whole_again_pitfall_023(turn):
    assert counts() == [2, 1]
    async with AsyncSession(analytics) as session:
        await session.execute(delete(Visit))
        await session.commit()
    with Session(shop) as session:
        session.execute(delete(Order).where(Order.id == 2))
        session.commit()
    assert counts() == [1, 0]
    await analytics.dispose()

@pytest.mark.parametrize("turn", [1, 2])
def test_the_replica_sees_what_the_primary_wrote_and_cannot_write_pitfall_022(turn):
    with Session(shop) as session:
        session.add(Order(id=3))
        session.commit()
    with Session(replica) as session:
        assert session.scalars(select(Order.id)).all() == [1, 2, 3]
        with pytest.raises(OperationalError, match="readonly"):
            session.execute(delete(Order))

def test_engines_by_other_spellings_mean_the_same_pitfall_022(monkeypatch, tmp_path):
    name = f"sqlite:///{analytics.url.database}"
    late = create_engine("sqlite:///./../project/shop.db")
    monkeypatch.chdir("..")
    deep = create_engine("sqlite:///project/shop.db")
    for engine in (late, deep):
        with engine.connect() as connection:
            assert connection.scalar(select(func.count(Order.id))) == 2
        engine.dispose()

@pytest.mark.parametrize("turn", [1, 2])
def test_a_session_with_binds_commits_to_both(turn):
    with new_session() as session:
        session.add_all([Order(id=7), Visit(id=7)])
        session.commit()
    assert counts() == [3, 2]

def test_named_sessions(arena):
    with arena.session(database="analytics") as session:
        session.add(Visit(id=5))
        session.commit()
        assert counts() == [2, 2]
    with arena.session(database="shop") as session, arena.session() as first:
        assert session.scalar(select(func.count(Order.id))) == 2
        assert first.scalar(select(func.count(Order.id))) == 2

async def test_named_sessions_are_async_where_their_engine_is(arena):
    async with arena.session(database="analytics") as session:
        assert await session.scalar(select(func.count(Visit.id))) == 1
    with arena.session(database="shop") as session:
        assert session.scalar(select(func.count(Order.id))) == 2

def test_a_name_that_nobody_knows(arena):
    with pytest.raises(ConfigError) as caught:
        arena.session(database="analytic")
    assert "arena.session(database='analytics')" in caught.value.fix
    assert "analytics, shop" in caught.value.cause
    assert "test_several.py" in caught.value.cause

@pytest.mark.parametrize("turn", [1, 2])
async def test_engines_that_a_lifespan_makes(turn):
    @asynccontextmanager
    async def lifespan():
        urls = (f"sqlite+aiosqlite:///{name}.db" for name in ("shop", "analytics"))
        engines = [create_async_engine(url) for url in urls]
        yield engines
        for engine in engines:
            await engine.dispose()
    async with lifespan() as engines:
        for engine, model, number in zip(engines, (Order, Visit), (2, 1)):
            async with AsyncSession(engine) as session:
                assert await session.scalar(select(func.count(model.id))) == number
                session.add(model(id=50))
                await session.commit()
    assert counts() == [3, 2]

@pytest.mark.arena(seed=False)
def test_empty_both():
    assert counts() == [0, 0]

def test_a_transaction_left_open_on_the_second_is_a_leak_pitfall_023():
    connection = analytics_sync.connect()
    connection.execute(delete(Visit))
    globals()["left"] = connection

def test_and_is_gone():
    assert counts() == [2, 1]

def test_that_fails():
    assert counts() == []
"""


def test_several_databases_pitfall_022_023(tmp_path: Path) -> None:
    """Apart from each other, whole again, one under all its names; each in summary and leaks."""
    example = small_example(tmp_path, app=APP, test_several=TESTS)
    example = example.with_paths({"pytest.ini": CONFIG})
    with untouched(example, "shop.db", "analytics.db"):
        run = example.run("-p", "no:randomly", "-v", "--arena-keep=failed")
    run.expect(1, passed=15, failed=1, errors=1)
    run.says("the test ended with an open transaction", "connection.execute(delete(Visit))")
    run.says("database shop, analytics on SQLite")
    run.says("had shop, analytics; changed nothing")
    assert run.output.count("the test's database was kept: (") == 2, run.output


BUILDERS = """
import asyncio
from sqlalchemy import insert, text
from app import Order, ShopBase, Visit, AnalyticsBase, analytics, shop

def make_shop():
    ShopBase.metadata.create_all(shop)

async def fill_shop(session):
    def work():
        with shop.begin() as connection:
            connection.execute(insert(Order).values(id=1))
    await asyncio.to_thread(work)

def reads_the_other(session):
    with shop.connect() as connection:
        connection.execute(text("SELECT 1"))
    session.add(Visit(id=1))
"""

BUILT = """
import threading
from sqlalchemy import select
from app import Order, Visit, analytics_sync, shop

def test_built():
    with shop.connect() as one, analytics_sync.connect() as other:
        assert one.scalars(select(Order.id)).all() == other.scalars(select(Visit.id)).all() == [1]
"""


def test_builders_may_use_threads_and_only_their_own_database(tmp_path: Path) -> None:
    """A thread with its context works on the template; another database is refused."""
    lines = CONFIG.replace("shop = app:ShopBase", "shop = builders:make_shop")
    lines = lines.replace("shop = app:seed_shop", "shop = builders:fill_shop")
    example = small_example(tmp_path, app=APP, builders=BUILDERS, test_built=BUILT)
    example = example.with_paths({"pytest.ini": lines})
    with untouched(example, "shop.db", "analytics.db"):
        example.run().expect(passed=1)
        other = example.change("pytest.ini", "app:seed_analytics", "builders:reads_the_other")
        other.run().expect(1, failed=1).says("A401", "analytics = module:its_function")


MEANWHILE = """
import threading
from sqlalchemy import select
from app import Order, ShopBase, shop

building, connecting = threading.Event(), threading.Event()

def make(connection):
    building.set()
    connecting.wait(20)
    ShopBase.metadata.create_all(connection)

def test_a_thread_of_the_apps_waits_for_the_template():
    def add():
        connecting.set()
        with shop.begin() as connection:
            connection.execute(Order.__table__.insert().values(id=1))
    def first():
        with shop.connect():
            pass
    threads = [threading.Thread(target=first), threading.Thread(target=add)]
    threads[0].start()
    building.wait(20)
    threads[1].start()
    for thread in threads:
        thread.join()
    with shop.connect() as connection:
        assert connection.scalars(select(Order.id)).all() == [1]

def test_the_template_is_clean():
    with shop.connect() as connection:
        assert connection.scalars(select(Order.id)).all() == []
"""


def test_who_connects_while_a_template_is_built_waits_for_it(tmp_path: Path) -> None:
    """A thread that the app starts meanwhile is none of the builder's."""
    example = small_example(tmp_path, app=APP, test_meanwhile=MEANWHILE)
    ini = "[pytest]\narena_schema = test_meanwhile:make\npythonpath = .\n"
    example.with_paths({"pytest.ini": ini}).run("-p", "no:randomly").expect(passed=2)
