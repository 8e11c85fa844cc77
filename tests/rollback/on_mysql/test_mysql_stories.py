"""An unmodified app on MySQL or MariaDB, whose tests are rolled back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._mysql.rollback._mysql_proxy import MySQLProxy
from tests.mysql.shop import shop
from tests.mysql.test_clones import RAW, REQUESTS, SCRIPT, WIDE
from tests.rollback.on_mysql.conftest import INSERT, SharedDatabase, ask, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer
    from tests.example import Example


def rolled_back(server: StoryMySQLServer, folder: Path, driver: str = "mysql+asyncmy") -> Example:
    """Return the shop, isolated by rollback."""
    example = shop(server, folder, driver)
    return replace(example, env={**example.env, "ARENA_ISOLATION": "rollback"})


NAME = """
from app import engine
from sqlalchemy import text


async def test_no_row_is_committed(client, arena):
    assert (await client.post("/items/pear")).json() == 2
    assert "mysqld.sock" in arena.url


async def name():
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT DATABASE()"))


NAMES = []


async def test_keeps_its_database(client):
    NAMES.append(await name())
    assert (await client.post("/items/pear")).json() == 2


async def test_after_a_row(client):
    assert await name() == NAMES[-1]
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TEMPORARY TABLE passing (a INT)"))


async def test_after_a_temporary_table(client):
    assert await name() == NAMES[-1]
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE more (a INT)"))


async def test_after_a_table(client):
    assert await name() != NAMES[-1]
    assert (await client.get("/items")).json() == ["seeded"]
"""


@pytest.mark.parametrize(
    "driver",
    ["mysql+asyncmy", pytest.param("mariadb+aiomysql", marks=pytest.mark.slow)],
)
def test_an_unmodified_app_is_rolled_back(
    server: StoryMySQLServer, tmp_path: Path, driver: str
) -> None:
    """The database is replaced only after a statement that commits by itself."""
    if driver.startswith("mariadb") and "MariaDB" not in server.version:
        pytest.skip("SQLAlchemy's dialect mariadb refuses MySQL")
    example = rolled_back(server, tmp_path, driver)
    run = example.with_files(test_requests=REQUESTS, test_name=NAME).run()
    run.expect(passed=9).says(
        "isolation rollback", "POST /lost/pear 200 wrote item (1 row) and never committed it"
    )
    assert server.left() == []


@pytest.mark.slow
def test_wide_fixtures_and_raw_connections(server: StoryMySQLServer, tmp_path: Path) -> None:
    """A level above rows of a wide fixture begins with a copy."""
    example = rolled_back(server, tmp_path).with_files(test_wide=WIDE, test_raw=RAW)
    example.run("-q", "-p", "xdist", "-n", "2").expect(passed=8)
    assert server.left() == []


UNRESTORABLE = """
import pytest
from app import engine
from sqlalchemy import text


@pytest.mark.parametrize("turn", [1, 2])
async def test_it(client, turn):
    async with engine.begin() as connection:
        assert await connection.scalar(text("SELECT NEXT VALUE FOR tickets")) == 1
        assert await connection.scalar(text("SELECT COUNT(*) FROM passing")) == 0
        await connection.execute(text("INSERT INTO passing VALUES (1)"))
    async with engine.begin() as connection:
        await connection.execute(text("SELECT name FROM item FOR UPDATE SKIP LOCKED"))
"""
MEMORY = SCRIPT + "CREATE TABLE passing (a INT) ENGINE = MEMORY;"


@pytest.mark.slow
def test_tables_without_transactions(server: StoryMySQLServer, tmp_path: Path) -> None:
    """They are named, and a copy restores them."""
    if "MariaDB" not in server.version:
        pytest.skip("MySQL has no sequences")
    example = rolled_back(server, tmp_path).change("pytest.ini", "app:Base", "schema.sql")
    example = example.with_paths({"schema.sql": MEMORY}).with_files(test_it=UNRESTORABLE)
    run = example.run("-q")
    run.expect(passed=2)
    run.says("passing (MEMORY), tickets (sequence)", "SKIP LOCKED skips no row")


NO_SAVEPOINT = """
from app import engine
from sqlalchemy import text


async def test_writes():
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO passing VALUES (1)"))
        await connection.execute(text("SELECT COUNT(*) FROM crash_safe"))
"""
CRASH_SAFE = "CREATE TABLE crash_safe (a INT) ENGINE = Aria TRANSACTIONAL = 1;"


@pytest.mark.slow
def test_an_engine_without_savepoints(server: StoryMySQLServer, tmp_path: Path) -> None:
    """The server refuses the savepoint of a transaction, and the client gets an answer."""
    if "MariaDB" not in server.version:
        pytest.skip("MySQL has no Aria")
    example = rolled_back(server, tmp_path).change("pytest.ini", "app:Base", "schema.sql")
    example = example.with_paths({"schema.sql": MEMORY + CRASH_SAFE})
    run = example.with_files(test_it=NO_SAVEPOINT).run("-q", "-p", "no:randomly")
    run.expect(1, failed=1)
    run.says("needs savepoints, which an engine may lack. Next, for this test: @pytest.mark.arena(")


LOST = """
import pytest
from app import URL, engine
from sqlalchemy import text


async def test_ends_the_connection(client):
    await client.post("/items/pear")
    async with engine.connect() as connection:
        await connection.execute(text("CREATE PROCEDURE ends() BEGIN COMMIT; END"))
        with pytest.raises(Exception, match="CALL ends.. has ended the transaction"):
            await connection.execute(text("CALL ends()"))


async def test_after_it(client):
    assert (await client.get("/items")).json() == ["seeded"]
    assert (await client.post("/items/pear")).json() == 2


@pytest.fixture(scope="module")
def wide():
    from sqlalchemy import create_engine
    own = create_engine(URL.replace("asyncmy", "pymysql"))
    with own.begin() as connection:
        connection.execute(text("INSERT INTO item (name) VALUES ('wide')"))
    yield
    own.dispose()


@pytest.mark.parametrize("turn", [1, 2])
async def test_on_rows_of_a_wide_fixture(wide, client, turn):
    assert (await client.get("/items")).json() == ["seeded", "wide"]
    async with engine.connect() as connection:
        await connection.execute(text("CREATE PROCEDURE ends() BEGIN COMMIT; END"))
        with pytest.raises(Exception, match="CALL ends.. has ended the transaction"):
            await connection.execute(text("CALL ends()"))
"""


@pytest.mark.slow
def test_the_shared_connection_is_lost(server: StoryMySQLServer, tmp_path: Path) -> None:
    """The next test has a new copy, with the rows of wide fixtures."""
    rolled_back(server, tmp_path).with_files(test_lost=LOST).run("-q").expect(passed=4)


MARKED = """
import pytest
from app import engine
from sqlalchemy import text


async def address():
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT CONNECTION_ID()"))


async def test_shares_one(client):
    async with engine.connect() as one, engine.connect() as other:
        question = text("SELECT CONNECTION_ID()")
        assert await one.scalar(question) == await other.scalar(question)
    await client.post("/items/shared")


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.arena(isolation="clone")
async def test_has_several(client, turn):
    assert (await client.post("/items/cloned")).json() == 2
    async with engine.connect() as one, engine.connect() as other:
        question = text("SELECT CONNECTION_ID()")
        assert await one.scalar(question) != await other.scalar(question)
        await one.execute(text("INSERT INTO item (name) VALUES ('one')"))
        await other.execute(text("INSERT INTO item (name) VALUES ('other')"))
        await one.commit()
        await other.rollback()
        await one.execute(text("CREATE PROCEDURE ends() BEGIN COMMIT; END"))
        await one.execute(text("CALL ends()"))
    assert (await client.get("/items")).json() == ["seeded", "cloned", "one"]


async def test_shares_again(client):
    assert (await client.get("/items")).json() == ["seeded"]
    await test_shares_one(client)


@pytest.mark.arena(isolation="undo")
async def test_has_no_journal(client):
    await client.get("/items")
"""


def test_a_marker_with_another_isolation(server: StoryMySQLServer, tmp_path: Path) -> None:
    """The connections of a test by clone do not share one. Another isolation is an error."""
    run = rolled_back(server, tmp_path).with_files(test_marked=MARKED).run("-q")
    run.expect(1, passed=4, errors=1).says("isolation='undo' is not available")
    assert server.left() == []


# Planted defects: each does without one thing, and names the check that finds it.


def never_committed(shared: SharedDatabase) -> None:
    """The database itself never has what a transaction has committed."""
    with shared.connect(autocommit=False) as connection:
        ask(connection, INSERT, "Dune")
        connection.commit()
    assert shared.committed_names() == ["Sand"]


def all_restored(shared: SharedDatabase) -> None:
    """Rows, and what a session has, are those of the level's start."""
    with shared.connect() as connection:
        ask(connection, INSERT, "Dune")
        ask(connection, "CREATE TEMPORARY TABLE passing (a INT)")
        ask(connection, "SET @x = 1")
        shared.proxy.restart()
        assert shared.names() == ["Sand"]
        assert ask(connection, "SELECT @x") == [(None,)]
        ask(connection, "CREATE TEMPORARY TABLE passing (a INT)")


def commits_are_noticed(shared: SharedDatabase) -> None:
    """A statement that commits by itself is noticed, also if it fails."""
    with shared.connect() as connection:
        ask(connection, "TRUNCATE dancer")
    assert shared.proxy.is_committed


class CommitsReally(MySQLProxy):
    """Commits what the app commits."""

    def _count_change(self) -> None:
        super()._count_change()
        self._backend.query("COMMIT")


class ForgetsToRollBack(MySQLProxy):
    """Begins the next level on the rows of the last one."""

    def restart(self) -> None:
        """Begin another session, and keep what was written."""
        self._backend.query("COMMIT")
        super().restart()


class KeepsTheSession(MySQLProxy):
    """Rolls back alone."""

    def restart(self) -> None:
        """Keep variables and temporary tables."""
        self._backend.query("ROLLBACK")
        self._backend.begin()


class OverlooksCommits(MySQLProxy):
    """Begins another transaction, and tells of nothing."""

    def _note_end(self, *_arguments: object) -> None:
        self._backend.begin()


@pytest.mark.parametrize(
    "kind, check",
    [
        (MySQLProxy, never_committed),
        (MySQLProxy, all_restored),
        (MySQLProxy, commits_are_noticed),
        (CommitsReally, never_committed),
        (ForgetsToRollBack, all_restored),
        (KeepsTheSession, all_restored),
        (OverlooksCommits, commits_are_noticed),
    ],
)
def test_a_planted_defect_is_found(
    kind: type[MySQLProxy], check: Callable[[SharedDatabase], None], database: str
) -> None:
    """Each of these looks right for a while. The proxy itself passes."""
    with opened(database, kind) as shared:
        if kind is MySQLProxy:
            check(shared)
            return
        with pytest.raises(AssertionError):
            check(shared)
