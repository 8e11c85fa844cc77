"""A write in an `except` block, or in a generator that is left, is lost as any other is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

ROUTES = """

from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

sync_maker = sessionmaker(create_engine("sqlite:///dev.db"))
CACHE = {}


async def get_db():
    async with maker() as session:
        yield session
        await session.commit()


def get_sync_db():
    with sync_maker() as session:
        yield session
        session.commit()


@app.post("/left/async_for")
async def async_for():
    async for session in get_db():
        session.add(Dancer(name="A"))
        await session.flush()
        return "left before its commit"


@app.post("/left/next")
def next_():
    session = next(get_sync_db())
    session.add(Dancer(name="A"))
    session.flush()
    return "the generator is collected"


@app.post("/left/after_commit")
async def after_commit():
    async with maker() as session:
        async with session.begin():
            session.add(Dancer(name="A"))
        session.add(Dancer(name="B"))
        return "the second one is lost"


@app.post("/handled/async_block")
async def async_block():
    try:
        return CACHE["x"]
    except KeyError:
        async with maker() as session:
            session.add(Dancer(name="A"))
            await session.flush()
        return "new"


@app.post("/handled/async_close")
async def async_close():
    try:
        return CACHE["x"]
    except KeyError:
        session = maker()
        session.add(Dancer(name="A"))
        await session.flush()
        await session.close()
        return "new"


@app.post("/handled/block")
def block():
    try:
        return CACHE["x"]
    except KeyError:
        with sync_maker() as session:
            session.add(Dancer(name="A"))
            session.flush()
        return "new"


@app.post("/handled/unflushed")
def unflushed():
    try:
        return CACHE["x"]
    except KeyError:
        session = sync_maker()
        try:
            session.add(Dancer(name="A"))
            return "new"
        finally:
            session.close()


@app.post("/handled/connection")
def connection():
    try:
        return CACHE["x"]
    except KeyError:
        with sync_maker.kw["bind"].connect() as connection:
            connection.execute(Dancer.__table__.insert().values(name="A"))
        return "new"


@app.post("/honest/async_block")
async def honest_async_block():
    try:
        async with maker() as session:
            session.add(Dancer(name="A"))
            await session.flush()
            raise LookupError
    except LookupError:
        return "rolled back by its error"


@app.post("/honest/second_error")
async def second_error():
    try:
        return CACHE["x"]
    except KeyError:
        try:
            async with maker() as session:
                session.add(Dancer(name="A"))
                await session.flush()
                raise LookupError
        except LookupError:
            return "rolled back by a second error"


@app.post("/honest/close")
def honest_close():
    session = sync_maker()
    try:
        session.add(Dancer(name="A"))
        session.flush()
        return CACHE["x"]
    except KeyError:
        session.close()
        return "closed because of its error"


@app.post("/honest/async_close")
async def honest_async_close():
    session = maker()
    try:
        session.add(Dancer(name="A"))
        await session.flush()
        return CACHE["x"]
    except KeyError:
        await session.close()
        return "closed because of its error"


@app.post("/honest/rollback")
async def honest_rollback():
    try:
        return CACHE["x"]
    except KeyError:
        async with maker() as session:
            session.add(Dancer(name="A"))
            await session.flush()
            await session.rollback()
        return "rolled back on purpose"
"""

TESTS = """
import pytest
from app import app

PATHS = [route.path for route in app.routes if route.path.startswith(("/left", "/han", "/hon"))]

@pytest.mark.parametrize("path", PATHS)
async def test_it(client, path):
    assert (await client.post(path)).status_code == 200
"""


def test_writes_that_no_error_undoes_are_named(example: Example) -> None:
    """A rollback by the app's error, or on purpose, accuses nothing."""
    app = example.files["app.py"] + ROUTES
    run = example.with_files(app=app, test_it=TESTS).run("-q").expect(passed=13)
    assert run.output.count("LostWriteWarning: ") == 8, run.output
    run.says('session.add(Dancer(name="B"))')
    run.says("POST /left/async_for 200 wrote dancers (1 row) and never committed it: lost")
    run.says("POST /handled/unflushed 200 added Dancer, and never flushed or committed it: lost")
    run.never_says("/honest/")


# It commits before an answer of 2xx is sent, and rolls back before another one, as Advanced Alchemy
# does under `before_send_handler="autocommit"`.
LIBRARY = """
import logging


class Autocommit:
    def __init__(self, app, maker):
        self.app, self.maker = app, maker

    async def __call__(self, scope, receive, send):
        scope["session"] = session = self.maker()

        async def finish(message):
            if message["type"] == "http.response.start":
                await end(session, message["status"])
            await send(message)

        await self.app(scope, receive, finish)


async def end(session, status):
    try:
        if 200 <= status < 300:
            await session.commit()
        else:
            await session.rollback()
    except Exception:
        logging.debug("no commit")
    finally:
        await session.close()
"""
COMMITS = """
import autocommit
from fastapi import Request

app.add_middleware(autocommit.Autocommit, maker=maker)


@app.post("/auto/{status}/{name}")
async def auto(request: Request, status: int, name: str, flushes: bool = False):
    request.scope["session"].add(Dancer(name=name))
    if flushes:
        await request.scope["session"].flush()
    return Response(status_code=status)
"""
COMMITTED = """
import pytest

PATHS = ("201/Dune", "201/Sand", "303/Dune", "303/Dune?flushes=1", "404/Dune?flushes=1")


@pytest.mark.parametrize("path", PATHS)
async def test_it(client, path):
    await client.post(f"/auto/{path}")
    names = ["Sand", "Dune"] if path == "201/Dune" else ["Sand"]
    assert (await client.get("/dancers")).json() == names
"""


@pytest.mark.slow
def test_a_commit_that_a_library_fails_or_leaves_out_is_named(example: Example) -> None:
    """The client gets a success, and no code of the app has asked for the rollback."""
    app = "from fastapi import Response\n" + example.files["app.py"] + COMMITS
    project = example.with_files(app=app, test_it=COMMITTED)
    project = project.with_paths({"site-packages/autocommit.py": LIBRARY})
    project = project.change("pytest.ini", "pythonpath = .", "pythonpath = . site-packages")
    run = project.run("-Werror::pytest_arena.LostWriteWarning").expect(1, passed=5, errors=3)
    run.says(
        "POST /auto/201/Sand 201 failed to commit, and autocommit caught the error: "
        "IntegrityError: (sqlite3.IntegrityError) UNIQUE constraint failed: dancers.name",
        "POST /auto/303/Dune 303 added Dancer, and never flushed",
        "POST /auto/303/Dune 303 wrote dancers (1 row) and never committed it",
    )


FAILED_COMMITS = """

from fastapi import HTTPException
from fastapi.responses import JSONResponse, RedirectResponse
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import sessionmaker

sync_maker = sessionmaker(create_engine("SYNC_URL"))


def get_sync_db():
    with sync_maker() as session:
        yield session


def add_two(db):
    db.add(Dancer(name="Log"))
    db.add(Dancer(name="Sand"))


@app.post("/lost/commit")
async def commit(db=Depends(get_db)):
    add_two(db)
    try:
        await db.commit()
    except IntegrityError:
        pass


@app.post("/lost/sync")
def sync(db=Depends(get_sync_db)):
    add_two(db)
    try:
        db.commit()
    except IntegrityError:
        pass


@app.post("/lost/redirect")
async def redirect(db=Depends(get_db)):
    add_two(db)
    try:
        await db.commit()
    except IntegrityError:
        raise HTTPException(303, headers={"location": "/dancers"})


@app.post("/honest/rollback")
async def rollback(db=Depends(get_db)):
    add_two(db)
    try:
        await db.commit()
    except IntegrityError:
        await db.rollback()


@app.post("/honest/sync_rollback")
def sync_rollback(db=Depends(get_sync_db)):
    add_two(db)
    try:
        db.commit()
    except IntegrityError:
        db.rollback()
        db.add(Dancer(name="After"))
        db.commit()


@app.post("/honest/block")
async def block():
    try:
        async with maker.begin() as session:
            add_two(session)
    except IntegrityError:
        pass


@app.post("/honest/savepoint")
async def savepoint(db=Depends(get_db)):
    db.add(Dancer(name="Log"))
    await db.commit()
    try:
        async with db.begin_nested():
            await db.execute(Dancer.__table__.insert().values(id=1, name="x"))
    except IntegrityError:
        pass
    await db.commit()


@app.post("/refused/status")
async def status(db=Depends(get_db)):
    add_two(db)
    try:
        await db.commit()
    except IntegrityError:
        return JSONResponse({}, 409)


@app.post("/refused/error")
async def error(db=Depends(get_db)):
    add_two(db)
    try:
        await db.commit()
    except IntegrityError:
        raise HTTPException(409)
"""
FLUSHED = """

@app.post("/lost/flush")
async def flush(db=Depends(get_db)):
    add_two(db)
    try:
        await db.flush()
    except IntegrityError:
        pass
"""
FAILING = """
import pytest
from sqlalchemy.exc import IntegrityError
from app import Dancer, app, maker

PATHS = [route.path for route in app.routes if route.path.startswith(("/lost", "/hon", "/ref"))]

@pytest.mark.parametrize("path", PATHS)
async def test_it(client, path):
    expected = 409 if path.startswith("/ref") else 303 if "redirect" in path else 200
    assert (await client.post(path)).status_code == expected


async def test_of_its_own():
    async with maker() as session:
        session.add_all([Dancer(name="Log"), Dancer(name="Sand")])
        with pytest.raises(IntegrityError):
            await session.commit()
"""


@pytest.mark.parametrize("how", ["copy", pytest.param("undo", marks=pytest.mark.slow)])
def test_a_failed_commit_that_the_app_catches_and_does_not_roll_back(
    example: Example, how: str
) -> None:
    """PostgreSQL checks the constraint at the commit: no flush fails there."""
    routes = FAILED_COMMITS.replace("SYNC_URL", "sqlite:///dev.db") + FLUSHED
    project = example
    if how == "undo":
        project = on_postgresql(example)
        url = "postgresql+psycopg://me@db.example.org/shop"
        routes = FAILED_COMMITS.replace("SYNC_URL", url)
        deferred = 'UniqueConstraint("name", deferrable=True, initially="DEFERRED")'
        columns = f"mapped_column()\n    __table_args__ = ({deferred},)"
        project = project.change("app.py", "mapped_column(unique=True)", columns)
        project = project.change("app.py", "import select", "import UniqueConstraint, select")
    app = project.files["app.py"] + routes
    run = project.with_files(app=app, test_it=FAILING).run("-Werror::pytest_arena.LostWriteWarning")
    lost = routes.count("/lost/")
    run.expect(1, passed=routes.count("@app.post") + 1, errors=lost)
    run.says(
        "POST /lost/commit 200 failed to commit, and the app caught the error: ",
        "POST /lost/sync 200 failed to commit",
        "POST /lost/redirect 303 failed to commit",
        'db.add(Dancer(name="Log"))',
        "session.rollback() where the app catches the error",
    )
    run.never_says("POST /honest", "POST /refused")


CLEAN_UPS = """
import unittest
import pytest
from fastapi.testclient import TestClient
from app import Local, app, engine

client = TestClient(app)


@pytest.fixture
def local():
    yield Local
    Local.configure(bind=engine)


def test_finalizer(request, local):
    connection = engine.connect()
    request.addfinalizer(connection.close)
    transaction = connection.begin()
    request.addfinalizer(transaction.rollback)
    local.configure(bind=connection)
    assert client.post("/items").status_code == 200


class TestCleanUp(unittest.TestCase):
    def test_it(self):
        connection = engine.connect()
        self.addCleanup(connection.close)
        transaction = connection.begin()
        self.addCleanup(transaction.rollback)
        Local.configure(bind=connection)
        self.addCleanup(Local.configure, bind=engine)
        assert client.post("/items").status_code == 200
"""
OF_CLEAN_UPS = """
from fastapi import FastAPI
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

engine = create_engine("sqlite:///shop.db", connect_args={"check_same_thread": False})
Local = sessionmaker(engine)
app = FastAPI()


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)


@app.post("/items")
def add():
    with Local() as session:
        session.add(Item())
        session.commit()
"""


def test_a_clean_up_that_a_test_registers_loses_nothing(example: Example) -> None:
    """As a tear-down: pytest and unittest call the rollback."""
    config = "[pytest]\narena_app = app:app\narena_schema = app:Base\npythonpath = .\n"
    config += "filterwarnings = error::pytest_arena.LostWriteWarning\n"
    files = example.with_files(app=OF_CLEAN_UPS, test_it=CLEAN_UPS)
    files.with_paths({"pytest.ini": config}).run().expect(passed=2)
