"""Servers and logins that cannot be used, or with which a test may pass wrongly."""

from __future__ import annotations

import re
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.engine import URL

from tests.mysql.server import PrivateServer, connect
from tests.mysql.shop import shop_on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.example import Example, Run

pytestmark = pytest.mark.slow

_LOGIN = "CREATE USER poor@localhost IDENTIFIED BY 'wOrd7'"
_DEVELOPERS = (
    "CREATE DATABASE shop",
    "CREATE TABLE shop.item (id INT PRIMARY KEY, name VARCHAR(50))",
    "INSERT INTO shop.item VALUES (1, 'the developer')",
    _LOGIN,
)
_TOUCHES = (
    "SELECT * FROM shop.item",
    "CHECKSUM TABLE shop.item",
    "SHOW TABLES FROM shop",
    "SHOW GRANTS FOR poor@localhost",
    "SHOW GLOBAL VARIABLES LIKE 'sql_mode'",
)


class Bad:
    """A server for one test, and a shop whose engine has the URL of the developer's database."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.server = PrivateServer(*options)
        self._folder = folder
        for statement in _DEVELOPERS:
            self.run(statement)

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement as the administrator."""
        with closing(connect(self.server.socket)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def touches(self) -> list[object]:
        """Return what is the developer's."""
        return [self.run(statement) for statement in _TOUCHES]

    def shop(self, user: str = "root") -> Example:
        """Return the project, in which pytest-arena has a login."""
        password = "wOrd7" if user == "poor" else None
        by_socket = URL.create(
            "mysql", user, password, "localhost", query={"unix_socket": self.server.socket}
        )
        apps = by_socket.set(
            drivername="mysql+asyncmy", username="root", password=None, database="shop"
        )
        return shop_on(apps, by_socket, self._folder).with_files(test_it=PLAIN)


PLAIN = """
async def test_it(client):
    assert (await client.post("/items/pear")).json() == 2


async def test_the_next(client):
    assert (await client.get("/items")).json() == ["seeded"]
"""


@pytest.fixture
def bad(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bad]:
    """A server with the options of a marker. The developer's rows are as before afterwards."""
    made = Bad(tmp_path, *getattr(request, "param", ()))
    before = made.touches()
    yield made
    if made.server.process.poll() is not None:
        made.server.start()
    after = made.touches()
    made.server.stop()
    assert after == before


def four_parts(run: Run) -> None:
    """Check the errors of a run: each has four parts and a code, and no password."""
    errors = re.findall(
        r"(?m)^.*Error: .*\n.*  why: .*\n(?:.*\n)*?.*  next: .*\n(?:.*\n){0,4}?.*\[A\d+\]",
        run.output,
    )
    assert errors, run.output
    for error in errors:
        assert error.count("cause: ") == 1
        assert len(error.splitlines()) <= 12
    run.never_says("wOrd7")


def test_a_login_that_may_create_nothing(bad: Bad) -> None:
    """The next step is the GRANT, and the cause the option."""
    run = bad.shop("poor").run("-q").expect(1, failed=1)
    four_parts(run)
    run.says("poor", "may not create databases", "pytest.ini", "GRANT ALL ON `arena")


def test_a_login_that_may_create_and_not_write(bad: Bad) -> None:
    """Each right that is missing is named by the server."""
    bad.run("GRANT CREATE ON `arena\\_%`.* TO poor@localhost")
    run = bad.shop("poor").run("-q").expect(1, failed=1)
    bad.run("REVOKE CREATE ON `arena\\_%`.* FROM poor@localhost")
    four_parts(run)
    run.says("INSERT command denied", "has too few rights", "pytest.ini", "GRANT ALL ON `arena")


SCRIPT = """
CREATE TABLE item (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50));
CREATE TABLE line (id INT AUTO_INCREMENT PRIMARY KEY, item_id INT);
CREATE TABLE log (name VARCHAR(50));
CREATE TRIGGER logs AFTER INSERT ON item FOR EACH ROW INSERT INTO log VALUES (NEW.name);
"""
_WITHOUT_TRIGGER = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER ON `arena\\_%`.*"
)


def with_trigger(bad: Bad) -> Example:
    """Return the shop whose schema is a script with a trigger."""
    example = bad.shop("poor").change("pytest.ini", "app:Base", "schema.sql")
    return example.with_paths({"schema.sql": SCRIPT})


def test_a_login_that_may_not_create_triggers(bad: Bad) -> None:
    """Without triggers in the schema it needs none. A trigger is named by its line."""
    bad.run(f"GRANT {_WITHOUT_TRIGGER} TO poor@localhost")
    bad.shop("poor").run("-q").expect(passed=2)
    run = with_trigger(bad).run("-q").expect(1, failed=2)
    bad.run(f"REVOKE {_WITHOUT_TRIGGER} FROM poor@localhost")
    four_parts(run)
    run.says("TRIGGER command denied", "schema.sql:5", "next: GRANT ALL ON `arena")


@pytest.mark.parametrize("bad", [("--log-bin",)], indirect=True)
def test_a_binary_log_without_trust(bad: Bad) -> None:
    """The next step is the setting of the server."""
    bad.run("GRANT ALL ON `arena\\_%`.* TO poor@localhost")
    run = with_trigger(bad).run("-q").expect(1, failed=2)
    bad.shop("poor").run("-q").expect(passed=2)
    bad.run("REVOKE ALL ON `arena\\_%`.* FROM poor@localhost")
    four_parts(run)
    run.says("schema.sql:5", "next: SET GLOBAL log_bin_trust_function_creators = 1")


@pytest.mark.parametrize("bad", [("--version=10.3.39-MariaDB",)], indirect=True)
def test_a_version_that_is_too_old(bad: Bad) -> None:
    """Nothing is created on it."""
    run = bad.shop().run("-q").expect(1, failed=1)
    four_parts(run)
    run.says("is MariaDB 10.3.39", "needs 10.6 or newer", "pytest.ini")
    assert bad.run("SHOW DATABASES LIKE 'arena%'") == []


STRICT = """
import pytest
from app import Item, maker
from sqlalchemy.exc import DataError


async def test_too_long(client):
    async with maker() as session:
        session.add(Item(name="x" * 60))
        await session.commit()
"""


@pytest.mark.parametrize("bad", [("--sql-mode=NO_ENGINE_SUBSTITUTION",)], indirect=True)
def test_a_mode_that_is_not_strict(bad: Bad) -> None:
    """Such a test may pass wrongly, which a line says."""
    run = bad.shop().with_files(test_it=STRICT).run("-q").expect(passed=1)
    run.says("the server's sql_mode is not strict", "STRICT_TRANS_TABLES")


NAMES = """
import pytest
from app import engine
from sqlalchemy import text


@pytest.mark.parametrize("turn", [1, 2])
async def test_it(client, arena, turn):
    assert (await client.get("/items")).json() == ["seeded"]
    assert (await client.post("/items/pear")).json() == 2
    assert arena.changes().inserted.tables == ("item",)


async def test_the_schema():
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE ITEM ADD COLUMN late INT"))


async def test_cascades(client):
    assert (await client.get("/items")).json() == ["seeded"]
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM Item"))
        assert await connection.scalar(text("SELECT COUNT(*) FROM Line")) == 0


async def test_cascades_are_undone(client):
    async with engine.begin() as connection:
        assert await connection.scalar(text("SELECT COUNT(*) FROM Line")) == 1
"""


@pytest.mark.parametrize("bad", [("--lower-case-table-names=1",)], indirect=True)
def test_names_of_tables_in_lower_case(bad: Bad) -> None:
    """Tests are isolated, and a line says how ``arena.changes`` names the tables."""
    example = bad.shop().with_files(test_it=NAMES)
    for name in ("item", "line"):
        example = example.change("app.py", f'name__ = "{name}"', f'name__ = "{name.title()}"')
    example = example.change("app.py", '"item.id"', '"Item.id"')
    run = example.run("-q").expect(passed=5)
    run.says("lower_case_table_names = 1: arena.changes() has the names of tables in lower case")


RESTARTS = """
import signal
import subprocess
import sys

import pytest
from app import Item, maker

RESTART = [sys.executable, "-c", '''
import sys, os, time, subprocess
from pathlib import Path
pid, how, socket, *command = sys.argv[1:]
os.kill(int(pid), int(how))
while os.path.exists(f"/proc/{{pid}}") and " Z " not in Path(f"/proc/{{pid}}/stat").read_text():
    time.sleep(0.01)
Path(socket).unlink(missing_ok=True)
print(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       start_new_session=True).pid)
''']
PID = [{pid!r}]


def restart(how):
    words = [*RESTART, PID[0], str(int(how)), {socket!r}, *{command!r}]
    PID[0] = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_at_its_end(client, how):
    assert (await client.get("/items")).json() == ["seeded"]
    assert (await client.post("/items/pear")).json() == 2
    restart(how)


async def test_after_it(client):
    assert (await client.get("/items")).json() == ["seeded"]
    assert (await client.post("/items/pear")).json() == 2


async def test_in_a_transaction(client):
    async with maker() as session:
        session.add(Item(name="open"))
        await session.flush()
        restart(signal.SIGKILL)
        await session.commit()


async def test_at_last(client):
    assert (await client.get("/items")).json() == ["seeded"]
    with open("pid", "w") as file:
        file.write(PID[0])
"""


def test_a_server_that_restarts(bad: Bad, tmp_path: Path) -> None:
    """Only the test whose connection was lost fails."""
    server = bad.server
    text = RESTARTS.format(
        pid=str(server.process.pid), socket=server.socket, command=server.command
    )
    run = bad.shop().with_files(test_it=text).run("-q")
    run.expect(1, passed=4, failed=1).says("test_in_a_transaction", "Lost connection")
    server.end(int((tmp_path / "project" / "pid").read_text()))


DEAD = """
import os
import signal
import pytest


async def test_before(client):
    assert (await client.post("/items/pear")).json() == 2
    os.kill({pid}, signal.SIGKILL)


@pytest.mark.parametrize("turn", range(20))
async def test_after(client, turn):
    await client.get("/items")
"""


def test_a_server_that_stays_away(bad: Bad) -> None:
    """Each test says so. The run waits for the server once, and not for each of its tests."""
    text = DEAD.format(pid=bad.server.process.pid)
    began = time.monotonic()
    run = bad.shop().with_files(test_it=text).run("-q")
    assert time.monotonic() - began < 100
    four_parts(run)
    run.expect(1, passed=1, errors=21).says("the server has stopped or is restarting")
    bad.server.process.wait()
