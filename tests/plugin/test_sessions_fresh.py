"""``db_session``: what it shows, what it hides, what it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.parameters import slow_except
from tests.plugin.private_server import PRODUCTION
from tests.plugin.test_session_functions import SERVER

if TYPE_CHECKING:
    from tests.example import Example

# pool_size=1: the app's only connection is the app's; foreign keys by the app's own listener.
MORE = """
from sqlalchemy import ForeignKey, event

@event.listens_for(engine.sync_engine, "connect")
def pragmas(connection, _):
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()

class Score(Base):
    __tablename__ = "scores"
    id: Mapped[int] = mapped_column(primary_key=True)
    dancer_id: Mapped[int] = mapped_column(ForeignKey("dancers.id"))

@app.put("/dancers/{id}/{name}")
async def rename(id: int, name: str, db=Depends(get_db)):
    (await db.get_one(Dancer, id)).name = name
    await db.commit()
"""

ASYNC = """
import asyncio
import pytest
from sqlalchemy import event, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from app import Dancer, Score, engine, maker
from pytest_arena.errors import PendingWorkError

async def test_it_is_of_the_kind_of_the_test(db_session):
    assert isinstance(db_session, AsyncSession)

def test_it_is_sync_here(db_session):
    assert isinstance(db_session, Session)

async def test_a_one_connection_pool_does_not_deadlock(db_session, client):
    dancer = await db_session.get_one(Dancer, 1)
    async with db_session.begin_nested():
        db_session.add(Dancer(name="pending"))
    answers = await asyncio.gather(*(client.get("/dancers") for _ in range(5)))
    assert [answer.json() for answer in answers] == [["Sand", "pending"]] * 5
    assert dancer.name == "Sand"

async def test_a_session_that_is_left_alone_is_not_seen(arena, client):
    async with arena.session(commit_before_requests=False) as session:
        session.add(Dancer(name="pending"))
        assert (await client.get("/dancers")).json() == ["Sand"]
        await session.flush()
        assert (await client.get("/dancers")).json() == ["Sand"]
        await session.commit()
        assert (await client.get("/dancers")).json() == ["Sand", "pending"]

def test_a_session_that_is_left_alone_is_not_seen_by_a_sync_request(arena, test_client):
    with arena.session(commit_before_requests=False) as session:
        session.add(Dancer(name="pending"))
        session.flush()
        assert test_client.get("/dancers").json() == ["Sand"]
        session.rollback()
    with arena.session() as session:
        session.add(Dancer(name="pending"))
        assert test_client.get("/dancers").json() == ["Sand", "pending"]

async def test_a_session_that_is_left_alone_stops_no_sync_request(arena, test_client):
    async with arena.session(commit_before_requests=False) as session:
        session.add(Dancer(name="pending"))
        assert test_client.get("/dancers").json() == ["Sand"]

async def test_gathered_requests_see_what_is_pending(db_session, client):
    db_session.add(Dancer(name="pending"))
    answers = await asyncio.gather(*(client.post(f"/dancers/{n}") for n in range(5)))
    assert {answer.status_code for answer in answers} == {201}
    assert len(list(await db_session.scalars(select(Dancer)))) == 7

async def read_get(db): return (await db.get(Dancer, 1)).name
async def read_get_one(db): return (await db.get_one(Dancer, 1)).name
async def read_scalar(db): return (await db.scalar(select(Dancer))).name
async def read_scalars(db): return (await db.scalars(select(Dancer))).first().name
async def read_execute(db): return (await db.execute(select(Dancer))).scalar().name
async def read_query(db): return await db.run_sync(lambda s: s.query(Dancer).first().name)
async def read_stream(db): return [d async for d in await db.stream_scalars(select(Dancer))][0].name
READS = [read_get, read_get_one, read_scalar, read_scalars, read_execute, read_query, read_stream]

@pytest.mark.parametrize("read", READS)
async def test_reads_are_fresh_after_a_request(db_session, client, read):
    dancer = await db_session.get(Dancer, 1)
    assert (await client.put("/dancers/1/Dune")).status_code == 200
    assert await read(db_session) == "Dune"
    assert dancer.name == "Dune"

async def test_instances_keep_their_values_after_a_commit_pitfall_124(db_session, client):
    dancer = Dancer(name="Grain")
    db_session.add(dancer)
    await client.get("/dancers")
    await db_session.commit()
    assert (dancer.id, dancer.name) == (2, "Grain")

async def test_changes_of_the_test_survive_a_fresh_read(db_session):
    dancer = await db_session.get_one(Dancer, 1)
    dancer.name = "mine"
    assert (await db_session.get_one(Dancer, 1)).name == "mine"
    assert (await db_session.scalar(select(Dancer))).name == "mine"

async def test_changes_survive_a_read_that_does_not_flush(db_session):
    dancer = await db_session.get_one(Dancer, 1)
    dancer.name = "mine"
    with db_session.no_autoflush:
        assert (await db_session.get_one(Dancer, 1)).name == "mine"
    await db_session.scalar(select(Dancer).execution_options(autoflush=False))
    await db_session.run_sync(lambda s: s.query(Dancer).autoflush(False).all())
    assert dancer.name == "mine"

async def test_changes_survive_a_read_inside_of_a_flush(db_session):
    dancer = await db_session.get_one(Dancer, 1)
    dancer.name = "mine"

    def read(session, *_):
        session.get(Dancer, 1)
        session.scalars(select(Dancer)).all()

    event.listen(db_session.sync_session, "before_flush", read)
    await db_session.flush()
    assert await db_session.scalar(select(Dancer.name)) == dancer.name == "mine"

async def test_reads_that_do_not_flush_are_fresh_if_nothing_is_pending(db_session, client):
    with db_session.no_autoflush:
        dancer = await db_session.get(Dancer, 1)
        await client.put("/dancers/1/Dune")
        assert (await db_session.get(Dancer, 1)).name == "Dune"
        await client.put("/dancers/1/Sand")
        await db_session.scalars(select(Dancer))
        assert dancer.name == "Sand"

@pytest.mark.parametrize("way", ["connection", "objects", "mappings"])
async def test_a_sync_request_with_rows_that_no_flush_wrote(db_session, test_client, way):
    if way == "connection":
        connection = await db_session.connection()
        await connection.execute(insert(Dancer).values(name="Dune"))
    elif way == "objects":
        await db_session.run_sync(lambda s: s.bulk_save_objects([Dancer(name="Dune")]))
    else:
        await db_session.run_sync(lambda s: s.bulk_insert_mappings(Dancer, [{"name": "Dune"}]))
    with pytest.raises(PendingWorkError):
        test_client.get("/dancers")
    await db_session.commit()
    assert test_client.get("/dancers").json() == ["Sand", "Dune"]

async def test_a_sync_request_with_pending_async_work(db_session, test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    assert len(list(await db_session.scalars(select(Dancer)))) == 1
    assert test_client.get("/dancers").json() == ["Sand"]
    db_session.add(Dancer(name="pending"))
    with pytest.raises(PendingWorkError, match="uncommitted work"):
        test_client.get("/dancers")
    await db_session.flush()
    with pytest.raises(PendingWorkError, match="uncommitted work"):
        test_client.get("/dancers")
    await db_session.commit()
    assert test_client.get("/dancers").json() == ["Sand", "pending"]

@pytest.fixture
async def made(db_session):
    db_session.add(Dancer(name="made"))
    await db_session.commit()
    yield
    assert len(list(await db_session.scalars(select(Dancer)))) == 2
    db_session.add(Dancer(name="in tear-down"))
    await db_session.flush()

@pytest.fixture
def made_and_looked_after(made, db_session):
    return db_session

async def test_async_fixtures(made, client):
    assert (await client.get("/dancers")).json() == ["Sand", "made"]

@pytest.mark.xfail(raises=ZeroDivisionError, strict=True)
async def test_a_failed_test(made, db_session):
    db_session.add(Dancer(name="more"))
    db_session.expunge_all()
    await db_session.flush()
    1 / 0

async def test_same_pragmas(db_session):
    db_session.add(Score(dancer_id=99))
    with pytest.raises(IntegrityError):
        await db_session.commit()
    await db_session.rollback()

def test_same_pragmas_for_the_sync_twin(db_session):
    db_session.add(Score(dancer_id=99))
    with pytest.raises(IntegrityError):
        db_session.commit()
    db_session.rollback()

async def test_whose_an_error_before_a_request_is(db_session, client):
    db_session.add(Score(dancer_id=99))
    with pytest.raises(IntegrityError) as caught:
        await client.get("/dancers")
    assert "next: await db_session.flush()" in caught.value.__notes__[0]
    await db_session.rollback()

def test_whose_an_error_before_a_sync_request_is(db_session, test_client):
    db_session.add(Score(dancer_id=99))
    with pytest.raises(IntegrityError) as caught:
        test_client.get("/dancers")
    assert "next: db_session.flush()" in caught.value.__notes__[0]
    db_session.rollback()

def test_sync_reads_are_fresh(db_session, test_client):
    dancer = db_session.get(Dancer, 1)
    db_session.add(Dancer(name="pending"))
    assert test_client.get("/dancers").json() == ["Sand", "pending"]
    for name, read in {
        "a": lambda: db_session.get(Dancer, 1), "b": lambda: db_session.get_one(Dancer, 1),
        "c": lambda: db_session.scalar(select(Dancer).order_by(Dancer.id)),
        "d": lambda: db_session.scalars(select(Dancer).order_by(Dancer.id)).first(),
        "e": lambda: db_session.query(Dancer).order_by(Dancer.id).first(),
    }.items():
        assert test_client.put(f"/dancers/1/{name}").status_code == 200
        assert read().name == dancer.name == name

async def test_nothing_is_left_checked_out(db_session, arena):
    assert engine.sync_engine.pool.checkedout() == 0
    assert arena.engine.sync_engine.pool.checkedout() == 0
    assert len(list(await db_session.scalars(select(Dancer)))) == 1
"""

SYNC_APP = """
from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

class Base(DeclarativeBase):
    pass

class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)

class Other(DeclarativeBase):
    pass

class Log(Other):
    __tablename__ = "logs"
    id: Mapped[int] = mapped_column(primary_key=True)

engine = create_engine("sqlite:///dev.db", pool_size=1, max_overflow=0)
logs = create_engine("sqlite:///logs.db")
app = FastAPI()

def get_db():
    with Session(engine) as session:
        yield session

@app.get("/dancers")
def dancers(db=Depends(get_db)):
    return [dancer.name for dancer in db.scalars(select(Dancer).order_by(Dancer.id))]

@app.post("/dancers/{name}", status_code=201)
def add(name: str, db=Depends(get_db)):
    db.add(Dancer(name=name))
    db.commit()
    with Session(logs) as session:
        session.add(Log())
        session.commit()
"""

SYNC = """
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from app import Dancer, Log, engine, logs

def count_logs():
    with Session(logs) as session:
        return session.scalar(select(func.count()).select_from(Log))

@pytest.mark.parametrize("turn", [1, 2])
def test_sync(db_session, test_client, turn):
    db_session.add(Dancer(name="Grain"))
    assert test_client.get("/dancers").json() == ["Sand", "Grain"]
    assert test_client.post("/dancers/Dune").status_code == 201
    assert isinstance(db_session, Session)
    assert db_session.scalar(select(func.count()).select_from(Dancer)) == 3
    assert count_logs() == 1

@pytest.mark.parametrize("turn", [1, 2])
async def test_async(db_session, client, turn):
    assert isinstance(db_session, Session)
    db_session.add(Dancer(name="Grain"))
    assert (await client.get("/dancers")).json() == ["Sand", "Grain"]
    assert (await client.post("/dancers/Dune")).status_code == 201
    assert db_session.scalar(select(func.count()).select_from(Dancer)) == 3
    assert count_logs() == 1

def test_nothing_is_left_checked_out(db_session, arena):
    assert engine.pool.checkedout() == arena.engine.pool.checkedout() == 0
    assert "dev.db" in arena.url
"""


def test_sessions_of_an_async_app(example: Example) -> None:
    """P1: pending work is seen by requests, what requests changed by the session."""
    small = example.change(
        "app.py",
        '"sqlite+aiosqlite:///dev.db"))',
        '"sqlite+aiosqlite:///dev.db"), pool_size=1, max_overflow=0, pool_timeout=5)',
    )
    app = small.files["app.py"] + MORE
    run = small.with_files(app=app, test_it=ASYNC).run()
    run.expect(passed=30, xfailed=1)


ENDED = """
import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from app import Dancer, Score


async def test_in_a_block(db_session, client):
    async with db_session.begin():
        db_session.add(Dancer(name="Dune"))
        await client.get("/dancers")
        db_session.add(Dancer(name="Storm"))


async def test_in_a_savepoint(db_session, client):
    savepoint = await db_session.begin_nested()
    await client.get("/dancers")
    await savepoint.rollback()


async def test_a_relationship(db_session, client):
    dancer = await db_session.get(Dancer, 1)
    assert dancer.scores == []


async def test_a_column(db_session, client):
    dancer = await db_session.get(Dancer, 1)
    db_session.expire(dancer)
    assert dancer.name == "Sand"


async def test_after_a_flush_that_failed(db_session, client):
    db_session.add(Dancer(name="Sand"))
    with pytest.raises(IntegrityError):
        await db_session.flush()
    await client.get("/dancers")


async def test_of_a_row_that_is_gone(db_session, client):
    dancer = await db_session.get(Dancer, 1)
    await client.delete("/dancers/1")
    dancer.name = "Dune"
    await client.get("/dancers")


async def test_two_sessions_on_one_row(db_session, arena, client):
    async with arena.session() as other:
        dancer = await db_session.get(Dancer, 1)
        (await other.get(Dancer, 1)).name = "first"
        await other.flush()
        dancer.name = "last"
        assert (await client.get("/dancers")).json() == ["last"]


def test_a_result_that_is_read_in_parts(db_session, test_client):
    db_session.add_all([Dancer(name=f"{number}") for number in range(4)])
    for dancer in db_session.scalars(select(Dancer).execution_options(yield_per=2)):
        test_client.delete(f"/dancers/{dancer.id}")
"""
DELETES = """
from sqlalchemy.orm import relationship

Dancer.scores = relationship(Score)


@app.delete("/dancers/{id}")
async def delete(id: int, db=Depends(get_db)):
    await db.delete(await db.get_one(Dancer, id, options=[selectinload(Dancer.scores)]))
    await db.commit()


from sqlalchemy.orm import selectinload
"""


@pytest.mark.slow
def test_an_error_after_the_commit_before_a_request_explains_itself(example: Example) -> None:
    """A block, a savepoint, a result that it ended. The sessions that hold locks are first."""
    app = example.files["app.py"] + MORE + DELETES
    options = ("--tb=short", "-W", "ignore", "-oarena_lock_timeout=0.2")
    run = example.with_files(app=app, test_it=ENDED).run(*options).expect(1, failed=7, passed=1)
    assert run.output.count("pytest-arena commits `db_session` before each request. ") == 2
    run.says(
        "`Dancer.scores` (dancers id=1) is not loaded",
        '["scores"])`, or load it by each query: `options(selectinload(Dancer.scores))`',
        "`Dancer.name` (dancers id=1) is not loaded",
        "next: await db_session.rollback()   after the flush that failed",
        "next: await db_session.get(…)   before you change the row: a request may have deleted it",
        "no open transaction of this process holds the lock. A result that was not read to its "
        "end may",
    )


@pytest.mark.slow
def test_sessions_of_a_sync_app_with_two_databases(example: Example) -> None:
    """P1: plain ``def`` endpoints, a pool of one connection; `db_session` is on the first one."""
    seed = example.files["seed.py"].replace("async def", "def")
    config = (
        example.files["pytest.ini"]
        .replace("arena_schema = app:Base", "arena_schema =\n  dev = app:Base\n  logs = app:Other")
        .replace("arena_seed = ", "arena_seed =\n  dev = ")
    )
    project = example.with_files(app=SYNC_APP, seed=seed, test_it=SYNC)
    run = project.with_paths({"pytest.ini": config}).run()
    run.expect(passed=5)
    assert not list(run.folder.glob("*.db"))


THREADS = """
import pytest
from concurrent.futures import ThreadPoolExecutor
from app import Dancer

@pytest.mark.parametrize("turn", range(20))
def test_threads(db_session, test_client, turn):
    db_session.add(Dancer(name="Storm"))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: test_client.get("/dancers"), range(4)))
    assert [one.json() for one in answers] == [["Sand", "Storm"]] * 4
"""


@pytest.mark.slow
def test_requests_of_several_threads_find_what_was_pending(example: Example) -> None:
    """The first of them commits it, the others wait for that."""
    example.with_files(test_it=THREADS).run().expect(passed=20)


JSON_COLUMN = """
import json
from sqlalchemy import JSON


class Event(Base):
    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[dict] = mapped_column(JSON)
"""

JSON_ENGINE = """
engine = create_async_engine(
    "sqlite+aiosqlite:///dev.db",
    json_serializer=lambda value: json.dumps(value, default=str),
    json_deserializer=lambda text: {"read": json.loads(text)},
    isolation_level="AUTOCOMMIT",
)
"""

JSON_TESTS = """
from uuid import UUID

import pytest
from app import Event

USER = UUID(int=1)


@pytest.fixture(scope="module")
def event(arena):
    with arena.session() as session:
        session.add(Event(data={"user": USER}))
        session.commit()


def test_a_sync_session_of_an_async_app(event, db_session):
    assert db_session.get(Event, 1).data == {"read": {"user": str(USER)}}
    assert db_session.get_bind().dialect._on_connect_isolation_level == "AUTOCOMMIT"
"""


def test_a_sync_session_has_the_json_functions_of_an_async_engine(example: Example) -> None:
    """The app can write a UUID as JSON, so a fixture of a wider scope can do so too."""
    app = example.files["app.py"]
    engine_line = next(line for line in app.splitlines() if line.startswith("engine = "))
    app = app.replace(engine_line, JSON_COLUMN + JSON_ENGINE)
    example.with_files(app=app, test_it=JSON_TESTS).run().expect(passed=1)


TWO_SCHEMAS = """
CREATE SCHEMA "the shop";
CREATE TABLE "the shop".dancers (id serial PRIMARY KEY, name text NOT NULL);
CREATE TABLE dancers (id serial PRIMARY KEY, name text NOT NULL);
"""
SCHEMA_TESTS = """
import pytest
from app import Dancer
from sqlalchemy import text


@pytest.fixture(scope="module")
def storm(arena):
    with arena.session() as session:
        session.add(Dancer(name="Storm"))
        session.commit()


def test_a_sync_session(storm, db_session, test_client):
    db_session.add(Dancer(name="Sand"))
    assert test_client.get("/dancers").json() == ["Storm", "Sand"]
    name = db_session.scalar(text("SELECT current_setting('application_name')"))
    assert name == "shop's own, with a \\\\"
"""
CONNECT_ARGS = {
    "asyncpg": """{"server_settings": {
        "search_path": '"the shop"', "application_name": "shop's own, with a \\\\"}}""",
    "psycopg": """{"application_name": "shop's own, with a \\\\",
        "options": '-c search_path="the\\\\ shop"'}""",
}


@pytest.mark.parametrize("driver", slow_except(CONNECT_ARGS, "asyncpg"))
def test_a_sync_session_has_the_settings_of_an_async_engine(example: Example, driver: str) -> None:
    """Before, its rows were in another schema than those of the app."""
    app = example.files["app.py"]
    engine_line = next(line for line in app.splitlines() if line.startswith("engine = "))
    url = PRODUCTION.replace("asyncpg", driver)
    engine = f'engine = create_async_engine("{url}", connect_args={CONNECT_ARGS[driver]})'
    project = example.with_files(app=app.replace(engine_line, engine), test_it=SCHEMA_TESTS)
    options = example.files["pytest.ini"].replace("arena_seed = seed:seed\n", "")
    options = options.replace("app:Base", "tables.sql")
    project = project.with_paths({"pytest.ini": options, "tables.sql": TWO_SCHEMAS})
    project.run(env={"ARENA_DATABASE": SERVER}).expect(passed=1)
