"""An app that knows nothing of tests, in each journal mode, and a server that outlives them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.example import fastapi_example

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

APP = """
import os
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import ForeignKey, create_engine, event, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker


class Base(DeclarativeBase):
    pass


class Crew(Base):
    __tablename__ = "crews"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    __table_args__ = {"sqlite_autoincrement": True}


class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    crew_id: Mapped[int] = mapped_column(ForeignKey("crews.id"))


MODE = "MODE_OF_APP"
URL = os.environ["DATABASE_URL"]
engine = create_async_engine(URL, pool_pre_ping=True)
sync_engine = create_engine(URL.replace("+aiosqlite", ""))
maker, sync_maker = async_sessionmaker(engine), sessionmaker(sync_engine)


@event.listens_for(engine.sync_engine, "connect")
@event.listens_for(sync_engine, "connect")
def on_connect(connection, _):
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA journal_mode = {MODE}")
    cursor.execute("PRAGMA cache_size = -4000")
    cursor.close()


async def get_db():
    async with maker() as session:
        yield session


app = FastAPI()


@app.get("/dancers")
async def dancers(db=Depends(get_db)):
    return list(await db.scalars(select(Dancer.name).order_by(Dancer.id)))


@app.post("/dancers/{crew}/{name}", status_code=201)
async def add(crew: int, name: str, db=Depends(get_db)):
    db.add(Dancer(name=name, crew_id=crew))
    try:
        await db.commit()
    except IntegrityError:
        raise HTTPException(409)
    return name


@app.post("/crews/{name}", status_code=201)
def add_crew(name: str):
    with sync_maker.begin() as session:
        session.add(crew := Crew(name=name))
        session.flush()
        return crew.id


@app.post("/tables/{name}/{column}", status_code=201)
async def add_table(name: str, column: str, db=Depends(get_db)):
    await db.execute(text(f"CREATE TABLE {name} ({column} INTEGER)"))
    await db.execute(text(f"ALTER TABLE dancers ADD COLUMN {column} INTEGER"))
    await db.commit()


@app.get("/database")
async def database(db=Depends(get_db)):
    mode = (await db.execute(text("PRAGMA journal_mode"))).scalar()
    keys = (await db.execute(text("PRAGMA foreign_keys"))).scalar()
    columns = [row.name for row in await db.execute(text("PRAGMA table_info(dancers)"))]
    return [mode, keys, columns]
"""

SEED = """
from app import Crew, Dancer


async def seed(session):
    session.add(Crew(id=1, name="Ground Force"))
    await session.flush()
    session.add(Dancer(name="Sand", crew_id=1))
"""

SERVER = """
import socket, uvicorn
from app import app

with socket.socket() as listening:
    listening.bind(("127.0.0.1", 0))
    listening.listen()  # or who asks before uvicorn does is refused
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])
"""

CONFTEST = """
import json, subprocess, sys, urllib.request
import pytest

class Server:
    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "server.py"], stdout=subprocess.PIPE)
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def ask(self, path, method="GET"):
        request = urllib.request.Request(self.url + path, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

@pytest.fixture(scope="session")
def server():
    server = Server()
    yield server
    server.process.terminate()
    server.process.communicate()
"""

STORY = """
import asyncio
import pytest
from sqlalchemy import func, select
from app import MODE, Crew, Dancer, maker, sync_engine, sync_maker

COLUMNS = ["id", "name", "crew_id"]

@pytest.mark.parametrize("turn", range(3))
async def test_async(client, db_session, server, turn):
    db_session.add(Dancer(name="Grain", crew_id=1))
    assert (await client.get("/dancers")).json() == ["Sand", "Grain"]
    assert (await client.post("/dancers/1/Dune")).status_code == 201
    assert (await client.post("/dancers/9/Rock")).status_code == 409
    assert await db_session.scalar(select(func.count()).select_from(Dancer)) == 3
    assert await asyncio.to_thread(server.ask, "/dancers") == ["Sand", "Grain", "Dune"]

@pytest.mark.parametrize("turn", range(3))
def test_sync(test_client, db_session, server, turn):
    assert test_client.post("/crews/Sandmen").json() == 2
    assert server.ask("/dancers/2/Rock", "POST") == "Rock"
    assert test_client.get("/dancers").json() == server.ask("/dancers") == ["Sand", "Rock"]
    assert db_session.scalars(select(Crew.name)).all() == ["Ground Force", "Sandmen"]
    with sync_maker() as session:
        assert session.scalar(select(func.count()).select_from(Dancer)) == 2

@pytest.mark.parametrize("turn", range(2))
async def test_gathered(client, turn):
    calls = (client.post(f"/dancers/1/{n}") for n in range(5))
    assert [answer.status_code for answer in await asyncio.gather(*calls)] == [201] * 5
    assert len((await client.get("/dancers")).json()) == 6

@pytest.mark.parametrize("turn", range(3))
async def test_tables(client, server, turn):
    columns = [f"a{turn}", f"b{turn}"]
    for table, column in zip(["one", "two"], columns):
        assert (await client.post(f"/tables/{table}/{column}")).status_code == 201
    wanted = [MODE, 1, COLUMNS + columns]
    assert (await client.get("/database")).json() == wanted
    assert await asyncio.to_thread(server.ask, "/database") == wanted

@pytest.fixture(scope="class")
def wide_dancer():
    with sync_maker.begin() as session:
        session.add(Dancer(name="Wide", crew_id=1))

@pytest.mark.usefixtures("wide_dancer")
class TestOfAClass:
    @pytest.mark.parametrize("turn", range(3))
    async def test_above_it(self, client, server, turn):
        assert (await client.post("/dancers/1/Narrow")).status_code == 201
        assert await asyncio.to_thread(server.ask, "/dancers") == ["Sand", "Wide", "Narrow"]

@pytest.mark.parametrize("turn", range(2))
def test_a_table_of_the_same_name_on_the_same_connection(turn, server):
    with sync_engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE same (a{turn})")
    assert server.ask("/dancers") == ["Sand"]

def test_more_than_sqlite_leaves_in_a_log(test_client, server):
    with sync_maker.begin() as session:
        session.add(Crew(name=5_000_000 * "x"))
    assert server.ask("/dancers") == test_client.get("/dancers").json() == ["Sand"]

def test_after_all(test_client, server):
    assert test_client.get("/dancers").json() == server.ask("/dancers") == ["Sand"]
    assert test_client.get("/database").json() == server.ask("/database") == [MODE, 1, COLUMNS]
"""

MEMORY_STORY = """
import asyncio
import pytest
from sqlalchemy import select, text
from app import Dancer, maker

@pytest.mark.parametrize("turn", range(3))
async def test_async(client, db_session, turn):
    db_session.add(Dancer(name="Grain", crew_id=1))
    assert (await client.get("/dancers")).json() == ["Sand", "Grain"]
    assert (await client.post("/dancers/1/Dune")).status_code == 201
    async with maker() as session:
        assert sorted(await session.scalars(select(Dancer.name))) == ["Dune", "Grain", "Sand"]

@pytest.mark.parametrize("turn", range(2))
def test_sync(test_client, turn):
    assert test_client.post(f"/tables/one/t{turn}").status_code == 201
    assert test_client.get("/database").json()[2][3:] == [f"t{turn}"]
    assert test_client.post("/dancers/1/Rock").status_code == 201
    assert test_client.get("/dancers").json() == ["Sand", "Rock"]

async def add(name):
    async with maker.begin() as session:
        session.add(Dancer(name=name, crew_id=1))

@pytest.fixture(scope="class")
def wide_dancer():
    asyncio.run(add("Wide"))

@pytest.mark.usefixtures("wide_dancer")
class TestOfAClass:
    @pytest.mark.parametrize("turn", range(2))
    async def test_above_it(self, client, turn):
        assert (await client.post("/dancers/1/Narrow")).status_code == 201
        assert (await client.get("/dancers")).json() == ["Sand", "Wide", "Narrow"]

async def test_after_all(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


@pytest.fixture
def example(tmp_path: Path) -> Example:
    """The app, its seed and its server."""
    example = fastapi_example(tmp_path)
    return example.with_files(app=APP, seed=SEED, server=SERVER, conftest=CONFTEST)


def in_mode(example: Example, mode: str) -> Example:
    """The app with a pragma of its own."""
    return example.change("app.py", "MODE_OF_APP", mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_an_app_and_a_server_of_its_own_see_the_running_tests_data_pitfall_126(
    example: Example, mode: str
) -> None:
    """Engines of both kinds, threads, loops, DDL, a class's rows; the server is never told."""
    tests = in_mode(example, mode).with_files(test_story=STORY)
    url = f"sqlite+aiosqlite:///{tests.folder}/prod.db"
    run = tests.run("-s", "-p", "no:cacheprovider", env={"DATABASE_URL": url}).expect(passed=18)
    assert not (run.folder / "prod.db").exists()


@pytest.mark.slow
def test_so_does_an_app_whose_database_is_in_memory(example: Example) -> None:
    """A static pool: one connection, which is kept from loop to loop where it can be."""
    memory = (
        in_mode(example, "delete")
        .change("app.py", "engine(URL, pool_pre_ping=True)", "engine(URL, poolclass=StaticPool)")
        .change("app.py", 'create_engine(URL.replace("+aiosqlite", ""))', "engine.sync_engine")
        .change("app.py", '@event.listens_for(sync_engine, "connect")\n', "")
        .change("app.py", "import os\n", "import os\nfrom sqlalchemy.pool import StaticPool\n")
    )
    tests = memory.with_files(test_story=MEMORY_STORY)
    tests.run("-s", env={"DATABASE_URL": "sqlite+aiosqlite://"}).expect(passed=8)


ALONE = """
import pytest
from app import engine

@pytest.mark.parametrize("turn", range(2))
async def test_one(client, turn):
    async with engine.connect() as connection:
        mode = await connection.exec_driver_sql("PRAGMA locking_mode")
        assert mode.scalar() == "normal"
        await connection.exec_driver_sql("PRAGMA locking_mode = EXCLUSIVE")
"""


def test_a_connection_that_wants_the_file_alone_is_not_the_next_tests(tmp_path: Path) -> None:
    """It would keep everybody else from the database, arena too."""
    fastapi_example(tmp_path).with_files(test_story=ALONE).run().expect(passed=2)
