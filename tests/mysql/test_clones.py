"""Each test has a clone of the template, and leaves nothing in the next one's."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.mysql.shop import shop
from tests.parameters import slow_except

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer

REQUESTS = """
import pytest
from app import Item, maker


@pytest.fixture
async def apple():
    async with maker() as session:
        session.add(Item(name="apple"))
        await session.commit()


async def test_a_request_sees_the_row_of_a_fixture(client, apple):
    assert (await client.get("/items")).json() == ["seeded", "apple"]
    assert (await client.post("/items/pear")).json() == 3


async def test_the_next_test_does_not(client):
    assert (await client.get("/items")).json() == ["seeded"]
    assert (await client.post("/items/pear")).json() == 2


async def test_forgets_a_commit(client):
    await client.post("/lost/pear")


def test_a_sync_client(test_client, arena):
    with arena.session() as session:
        session.add(Item(name="plum"))
        session.commit()
    assert test_client.get("/items").json() == ["seeded", "plum"]
    assert test_client.post("/items/pear").json() == 3
"""


@pytest.mark.parametrize(
    "driver", slow_except(["mysql+asyncmy", "mysql+aiomysql", "mariadb+asyncmy"], "mysql+asyncmy")
)
def test_an_unmodified_app(server: StoryMySQLServer, tmp_path: Path, driver: str) -> None:
    """Rows are visible in their test alone, numbers begin again, and a lost write is reported."""
    if driver.startswith("mariadb") and "MariaDB" not in server.version:
        pytest.skip("SQLAlchemy's dialect mariadb refuses MySQL")
    run = shop(server, tmp_path, driver).with_files(test_requests=REQUESTS).run("-q")
    run.expect(passed=4).says("POST /lost/pear 200 wrote item (1 row) and never committed it")
    assert server.left() == []


@pytest.mark.slow
def test_several_workers(server: StoryMySQLServer, tmp_path: Path) -> None:
    """A template is built once, and each worker has its clones."""
    example = shop(server, tmp_path).with_files(test_requests=REQUESTS, test_more=REQUESTS)
    example.run("-q", "-p", "xdist", "-n", "2").expect(passed=8)
    assert server.left() == []


CHANGES = """
from app import Item, Line, maker
from sqlalchemy import delete, update


async def test_changes(client, arena):
    async with maker() as session:
        await session.execute(update(Item).values(name="changed"))
        await session.commit()
    assert [str(change) for change in arena.changes()] == [
        "item id=1  name='seeded' -> 'changed'"] or arena.changes().updated["item"]
    await client.post("/items/pear")
    changes = arena.changes()
    assert len(changes.inserted["item"]) == 1 and len(changes.updated["item"]) == 1
    async with maker() as session:
        await session.execute(delete(Item).where(Item.id == 1))
        await session.commit()
    assert arena.changes().deleted.tables == ("item", "line")


async def test_nothing(arena, client):
    await client.get("/items")
    assert not arena.changes()
"""


def test_changes_and_cascades(server: StoryMySQLServer, tmp_path: Path) -> None:
    """``arena.changes`` compares with the level's start, and so sees what a cascade deletes."""
    shop(server, tmp_path).with_files(test_changes=CHANGES).run("-q").expect(passed=2)


READS = """
import pytest
from app import engine
from sqlalchemy import text

NAMES = []


async def name():
    async with engine.connect() as connection:
        NAMES.append(await connection.scalar(text("SELECT DATABASE()")))


@pytest.mark.parametrize("turn", [1, 2])
async def test_reads(client, turn):
    await client.get("/items")
    await name()


async def test_writes(client):
    await client.post("/items/pear")
    await name()


async def test_has_the_rows_of_the_template(client):
    assert (await client.get("/items")).json() == ["seeded"]
    assert (await client.post("/items/pear")).json() == 2
    await name()


async def test_changes_the_schema():
    await name()
    assert len(set(NAMES)) == 1
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE item ADD COLUMN late INT"))


async def test_has_another_clone(client):
    assert (await client.get("/items")).json() == ["seeded"]
    await name()
    assert NAMES[-1] != NAMES[0]
"""


def test_a_copy_is_made_only_for_a_changed_schema(server: StoryMySQLServer, tmp_path: Path) -> None:
    """After plain statements the changed tables get their rows and numbers back."""
    shop(server, tmp_path).with_files(test_reads=READS).run("-q").expect(passed=6)


WIDE = """
import pytest
from app import URL, Item, engine
from sqlalchemy import create_engine, insert, text

sync_engine = create_engine(URL.replace("asyncmy", "pymysql"))


def add(name):
    with sync_engine.begin() as connection:
        connection.execute(insert(Item).values(name=name))


@pytest.fixture(scope="module")
def wide():
    add("wide")


@pytest.mark.parametrize("turn", [1, 2])
async def test_above(wide, client, turn):
    assert (await client.get("/items")).json() == ["seeded", "wide"]
    await client.post("/items/mine")
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE item ADD COLUMN late INT"))


@pytest.fixture(scope="class")
def inner(wide):
    add("inner")


class TestClass:
    @pytest.mark.parametrize("turn", [1, 2])
    async def test_above_both(self, inner, client, turn):
        assert (await client.get("/items")).json() == ["seeded", "wide", "inner"]
        await client.post("/items/mine")


async def test_after_the_class(wide, client):
    assert (await client.get("/items")).json() == ["seeded", "wide"]
"""
AFTER = """
async def test_after_the_module(client):
    assert (await client.get("/items")).json() == ["seeded"]
"""


def test_rows_of_wide_fixtures(server: StoryMySQLServer, tmp_path: Path) -> None:
    """Each level begins with a clone of the level below."""
    example = shop(server, tmp_path).with_files(test_a_wide=WIDE, test_b_after=AFTER)
    example.run("-q").expect(passed=6)
    assert server.left() == []


TRANSACTION = """
import pytest
from app import URL
from sqlalchemy import create_engine, text

engine = create_engine(URL.replace("asyncmy", "pymysql"))


@pytest.fixture(scope="module")
def connection():
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO item (name) VALUES ('uncommitted')"))
        yield connection
        connection.rollback()


@pytest.fixture
def nested(connection):
    with connection.begin_nested() as savepoint:
        yield connection
        savepoint.rollback()


@pytest.mark.parametrize("turn", [1, 2])
def test_in_a_savepoint(nested, turn):
    nested.execute(text("INSERT INTO item (name) VALUES ('mine')"))
    names = nested.execute(text("SELECT name FROM item ORDER BY id")).scalars().all()
    assert names == ["seeded", "uncommitted", "mine"]
"""


def test_a_transaction_of_a_wide_fixture(server: StoryMySQLServer, tmp_path: Path) -> None:
    """It stays open over its tests, which undo their writes by savepoints."""
    run = shop(server, tmp_path).with_files(test_transaction=TRANSACTION).run("-q")
    run.expect(passed=2).says("a fixture keeps a transaction open during its tests")


PROCESS = """
import subprocess
import sys

CHILD = '''
import sys
from sqlalchemy import create_engine, text
with create_engine(sys.argv[1]).begin() as connection:
    connection.execute(text("INSERT INTO item (name) VALUES ('a process')"))
'''


async def test_another_process(client, arena):
    url = arena.url.replace("asyncmy", "pymysql")
    subprocess.run([sys.executable, "-c", CHILD, url], check=True)
    assert (await client.get("/items")).json() == ["seeded", "a process"]


async def test_the_next_test(client):
    assert (await client.get("/items")).json() == ["seeded"]
"""


def test_writes_of_another_process(server: StoryMySQLServer, tmp_path: Path) -> None:
    """The server's counters show a write whose statement no driver of the run has sent."""
    shop(server, tmp_path).with_files(test_process=PROCESS).run("-q").expect(passed=2)


SCRIPT = """
-- a dump; with a semicolon
CREATE TABLE item (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) DEFAULT 'a;b');
CREATE TABLE line (id INT AUTO_INCREMENT PRIMARY KEY, item_id INT);
CREATE TABLE log (name VARCHAR(50));
DELIMITER //
CREATE TRIGGER logs AFTER INSERT ON item FOR EACH ROW BEGIN
    INSERT INTO log VALUES (NEW.name);
    INSERT INTO log VALUES ('twice');
END //
CREATE FUNCTION writes() RETURNS INT MODIFIES SQL DATA BEGIN
    INSERT INTO log VALUES ('by a function');
    RETURN 1;
END //
DELIMITER ;
CREATE VIEW names AS SELECT name FROM item;
CREATE SEQUENCE tickets;
CREATE SEQUENCE numbers;
CREATE TABLE numbered (id INT DEFAULT (NEXT VALUE FOR numbers), name VARCHAR(9));
INSERT INTO log VALUES ('it''s; \\' fine');
"""
PROGRAMS = """
import pytest
from app import URL, engine
from sqlalchemy import create_engine, text


async def ask(statement):
    async with engine.begin() as connection:
        return list((await connection.execute(text(statement))).scalars())


@pytest.mark.parametrize("turn", [1, 2])
async def test_programs(client, turn):
    assert await ask("SELECT name FROM log") == ["it's; ' fine", "seeded", "twice"]
    await client.post("/items/pear")
    assert len(await ask("SELECT name FROM log")) == 5
    assert await ask("SELECT name FROM names") == ["seeded", "pear"]


@pytest.mark.parametrize("turn", [1, 2])
async def test_a_function_that_writes(turn):
    assert await ask("SELECT writes()") == [1]
    assert len(await ask("SELECT name FROM log")) == 4


@pytest.mark.parametrize("turn", [1, 2])
async def test_a_sequence(turn):
    assert await ask("SELECT NEXT VALUE FOR tickets") == [1]
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO numbered (name) VALUES ('one')"))
    assert await ask("SELECT id FROM numbered") == [1]


@pytest.fixture(scope="class")
def ticket():
    engine = create_engine(URL.replace("asyncmy", "pymysql"))
    with engine.begin() as connection:
        number = connection.scalar(text("SELECT NEXT VALUE FOR tickets"))
    engine.dispose()
    return number


class TestAboveAWideFixture:
    @pytest.mark.parametrize("turn", [1, 2, 3])
    async def test_a_sequence(self, ticket, turn):
        assert await ask("SELECT NEXT VALUE FOR tickets") == [ticket + 1]
"""


@pytest.mark.slow
def test_a_script_with_programs(server: StoryMySQLServer, tmp_path: Path) -> None:
    """Triggers, functions, views and sequences are copied, and a SELECT of a function may write."""
    if "MariaDB" not in server.version:
        pytest.skip("MySQL has no sequences")
    example = shop(server, tmp_path).change("pytest.ini", "app:Base", "schema.sql")
    example = example.with_paths({"schema.sql": SCRIPT}).with_files(test_programs=PROGRAMS)
    example.run("-q").expect(passed=9)


ENVIRONMENT = """
import os


def test_the_variable_is_replaced():
    assert "arena.invalid" in os.environ["DATABASE_URL"]


async def test_the_app_reaches_its_database(client):
    assert (await client.get("/items")).json() == ["seeded"]
"""


def test_the_environment(server: StoryMySQLServer, tmp_path: Path) -> None:
    """The URL in a variable leads nowhere, and the app's engine to the test's database."""
    example = shop(server, tmp_path)
    url = server.developers_url("mysql+asyncmy").render_as_string(hide_password=False)
    example = example.change("app.py", f"URL = {url!r}", 'URL = os.environ["DATABASE_URL"]')
    example = example.change("app.py", "\nfrom fastapi", "\nimport os\nfrom fastapi")
    example = example.with_files(test_environment=ENVIRONMENT)
    example.run("-q", env={"DATABASE_URL": url}).expect(passed=2)


FORKED = """
import multiprocessing
from app import URL


def work(name):
    from sqlalchemy import create_engine, text
    with create_engine(URL.replace("asyncmy", "pymysql")).begin() as connection:
        connection.execute(text("INSERT INTO item (name) VALUES (:name)"), {"name": name})


async def test_a_forked_process(client):
    process = multiprocessing.get_context("fork").Process(target=work, args=["forked"])
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (await client.get("/items")).json() == ["seeded", "forked"]
"""


@pytest.mark.slow
def test_a_forked_process(server: StoryMySQLServer, tmp_path: Path) -> None:
    """Its engines reach the test's database, and its rows are undone."""
    shop(server, tmp_path).with_files(test_forked=FORKED).run("-q").expect(passed=1)


RAW = """
import asyncmy
import pymysql
import pytest
from app import URL
from sqlalchemy.engine import make_url


def arguments(url):
    url = make_url(url)
    return {"host": url.host, "port": url.port, "user": url.username,
            "password": url.password or "", "database": url.database}


async def test_a_connection_without_an_engine(client, arena):
    connection = pymysql.connect(**arguments(arena.url))
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO item (name) VALUES ('raw')")
    connection.commit()
    assert (await client.get("/items")).json() == ["seeded", "raw"]
    connection.close()
    other = await asyncmy.connect(**arguments(arena.url))
    async with other.cursor() as cursor:
        await cursor.execute("INSERT INTO item (name) VALUES ('async')")
    await other.commit()
    assert (await client.get("/items")).json() == ["seeded", "raw", "async"]
    await other.ensure_closed()


async def test_is_undone(client):
    assert (await client.get("/items")).json() == ["seeded"]


async def test_is_refused(arena):
    with arena.expect_refusal():
        pymysql.connect(**arguments(URL))
    with arena.expect_refusal():
        await asyncmy.connect(**arguments(URL))
"""


def test_connections_without_an_engine(server: StoryMySQLServer, tmp_path: Path) -> None:
    """To the test's database they are admitted, and to the developer's refused."""
    shop(server, tmp_path).with_files(test_raw=RAW).run("-q").expect(passed=3)


REDIRECTED = """
import pymysql
from app import URL
from test_raw import arguments


async def test_is_led_inside(client):
    connection = pymysql.connect(**arguments(URL))
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO item (name) VALUES ('raw')")
    connection.commit()
    connection.close()
    assert (await client.get("/items")).json() == ["seeded", "raw"]
"""


def test_redirected_connections(server: StoryMySQLServer, tmp_path: Path) -> None:
    """``arena_drivers = redirect`` leads them into the test's database."""
    example = shop(server, tmp_path).with_files(test_raw=RAW, test_redirected=REDIRECTED)
    run = example.run("-q", "-oarena_drivers=redirect", "test_redirected.py")
    run.expect(passed=1)


OF_MARIADB = """
CREATE TABLE item (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50)) WITH SYSTEM VERSIONING;
CREATE TABLE line (id INT AUTO_INCREMENT PRIMARY KEY, item_id INT);
INSERT INTO line (item_id) VALUES (-5);
SET check_constraint_checks = 0;
ALTER TABLE line ADD CONSTRAINT positive CHECK (item_id > 0);
"""
CHANGED = """
async def test_changes(client, arena):
    await client.post("/items/pear")
    [row] = arena.changes().inserted
    assert row.after["name"] == "pear"
"""


def test_row_history_and_rows_that_are_older_than_a_check(
    server: StoryMySQLServer, tmp_path: Path
) -> None:
    """The key of a table with history has a hidden column. A copy has the older rows."""
    if "MariaDB" not in server.version:
        pytest.skip("MySQL has neither")
    example = shop(server, tmp_path).change("pytest.ini", "app:Base", "schema.sql")
    example = example.with_paths({"schema.sql": OF_MARIADB}).with_files(test_changed=CHANGED)
    run = example.change("pytest.ini", "arena_seed = seed:seed", "").run("-q")
    run.expect(passed=1).says("the server keeps old rows")


KEPT = """
async def test_fails(client):
    await client.post("/items/pear")
    assert False
"""


def test_a_kept_database(server: StoryMySQLServer, tmp_path: Path) -> None:
    """The line of a failed test has the command that opens the copy."""
    example = shop(server, tmp_path).with_files(test_kept=KEPT)
    run = example.run("-q", "--arena-keep=failed", "-oarena_roles=clerks")
    run.expect(status=1, failed=1).says("it names roles of PostgreSQL")
    command = re.findall(r"the test's database was kept: (mysql .*)", run.output)[0]
    words = [word for word in shlex.split(command) if word != "-p"]
    assert "--protocol=tcp" in words  # MySQL's client would use a socket for `localhost`
    if shutil.which("mysql") is None:
        pytest.skip("the client is not installed")
    rows = subprocess.run(
        [*words, "-Ne", "SELECT name FROM item ORDER BY id"],
        env={**os.environ, "MYSQL_PWD": server.entrance["password"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert rows.stdout.split() == ["seeded", "pear"]
