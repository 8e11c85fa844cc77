"""The app connects as a user that has rights on pytest-arena's databases only."""

from __future__ import annotations

import secrets
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_arena._mysql._control import MySQLControl, open_control
from pytest_arena._values import Address, ServerLogin
from tests.mysql.server import address_of
from tests.mysql.shop import shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer
    from tests.example import Example


@pytest.fixture
def control(server: StoryMySQLServer) -> Iterator[MySQLControl]:
    """A connection with all rights."""
    with closing(open_control(address_of(server.developers_arguments))) as opened:
        yield opened


@pytest.fixture
def strong(server: StoryMySQLServer, address: Address, control: MySQLControl) -> Iterator[Address]:
    """A login for runs that reaches the developer's database and may create users."""
    name = f"strong_{secrets.token_hex(4)}"
    control.run(f"CREATE USER '{name}'@'%' IDENTIFIED BY 'pw'")
    control.run(f"GRANT ALL ON *.* TO '{name}'@'%' WITH GRANT OPTION")
    yield address.as_(ServerLogin(name, "pw"))
    for user, host in control.rows(f"SELECT user, host FROM mysql.user WHERE user LIKE '%{name}'"):
        control.run(f"DROP USER '{user}'@'{host}'")


def shop_of(server: StoryMySQLServer, folder: Path, login: Address) -> Example:
    runs = server.url("mysql").render_as_string(hide_password=False)
    example = shop(server, folder)
    return example.change("pytest.ini", runs, f"mysql://{login.user}:pw@{login.server}/")


STORY = """
import pymysql
import pytest
from app import engine, URL
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

BEYOND = [
    "SELECT * FROM {name}.dancers",
    "DELETE FROM {name}.dancers",
    "INSERT INTO {name}.dancers SELECT 7, 'x', 1",
    "DROP TABLE IF EXISTS nope, {name}.dancers",
    "PREPARE s FROM 'DELETE FROM {name}.dancers'",
    "USE {name}",
    "SELECT user FROM mysql.user",
    "SET GLOBAL max_connections = 7",
    "CREATE USER somebody",
    "SELECT 1 INTO OUTFILE '/tmp/arena-beyond'",
    "FLUSH TABLES WITH READ LOCK",
]


@pytest.mark.parametrize("statement", BEYOND)
async def test_an_engine(statement, client):
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError, match="denied"):
            await connection.execute(text(statement))


async def test_a_statement_that_drops_a_database(arena):
    with arena.expect_refusal():
        async with engine.connect() as connection:
            await connection.execute(text("DROP DATABASE {name}"))


async def test_a_variable():
    async with engine.connect() as connection:
        await connection.execute(text("SET @beyond = 'DELETE FROM {name}.dancers'"))
        with pytest.raises(DBAPIError, match="denied"):
            await connection.execute(text("PREPARE s FROM @beyond"))


def test_the_first_statement_of_a_connection():
    url = URL.replace("asyncmy", "pymysql")
    other = create_engine(url, connect_args=dict(init_command="USE {name}"))
    with pytest.raises(DBAPIError, match="denied"):
        other.connect()


def test_a_raw_connection_has_no_other_login(arena):
    mine = make_url(URL)
    url = make_url(arena.url)
    words = dict(host=url.host, port=url.port, user=mine.username, password=mine.password or "")
    connection = pymysql.connect(database=url.database, **words)
    for statement in [*BEYOND, "DROP DATABASE {name}"]:
        with pytest.raises(Exception, match="denied"):
            connection.cursor().execute(statement)
    connection.close()


async def test_the_name(client):
    assert (await client.post("/dancers/Dune")).status_code == 201
    async with engine.connect() as connection:
        [(user,)] = await connection.execute(text("SELECT CURRENT_USER()"))
        assert user.startswith("arena_app_strong")
        await connection.execute(text("DROP VIEW names"))
    assert 0
"""
SCHEMA = """
CREATE TABLE dancers (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) UNIQUE);
CREATE VIEW names AS SELECT name FROM dancers;
"""


def test_what_the_server_refuses(
    server: StoryMySQLServer, tmp_path: Path, strong: Address, control: MySQLControl
) -> None:
    """Also what no parser sees. The user stays for later runs, and so does the cached template."""
    story = STORY.format(name=server.developers_arguments["database"])
    example = shop_of(server, tmp_path, strong).change("pytest.ini", "app:Base", "schema.sql")
    example = example.with_paths({"schema.sql": SCHEMA}).with_files(test_story=story)
    for _ in range(2):
        example.run("-q").expect(1, passed=15, failed=1)
    account = f"arena_app_{strong.user}"
    [(host,)] = control.rows(f"SELECT host FROM mysql.user WHERE user = '{account}'")
    grants = [line for (line,) in control.rows(f"SHOW GRANTS FOR '{account}'@'{host}'")]
    assert len(grants) == 2
    assert "USAGE ON *.*" in grants[0]
    assert "ALL PRIVILEGES ON `arena\\_%`.*" in grants[1]


RACE = """
async def test_race(arena):
    client = arena.client(raise_app_exceptions=False)
    async for race in arena.races():
        await race(client.post("/dancers/Dune"), client.post("/dancers/Dune"))
"""


def test_a_script_that_names_another_database(
    server: StoryMySQLServer, tmp_path: Path, strong: Address
) -> None:
    """As `mysqldump --databases` writes it. The server refuses its first such statement."""
    name = server.developers_arguments["database"]
    script = f"CREATE TABLE a (id INT);\nUSE {name};\nDROP TABLE dancers;\n"
    example = shop_of(server, tmp_path, strong).change("pytest.ini", "app:Base", "schema.sql")
    example = example.with_paths({"schema.sql": script}).with_files(test_race=RACE)
    example.run("-q").expect(1, failed=1).says("schema.sql", "denied")


def test_logins_that_lack_rights(
    server: StoryMySQLServer, tmp_path: Path, address: Address, control: MySQLControl
) -> None:
    """Each error has the statements to paste. With rights on other databases more are needed."""
    name = f"weak_{secrets.token_hex(4)}"
    control.run(f"CREATE USER '{name}'@'%' IDENTIFIED BY 'pw'")
    control.run(f"GRANT ALL ON `arena\\_%`.* TO '{name}'@'%'")
    login = address.as_(ServerLogin(name, "pw"))
    example = shop_of(server, tmp_path, login).with_files(test_race=RACE)
    try:
        step = f"GRANT PROCESS ON *.* TO {name}"  # it shows who waits for a lock
        example.run("-q").expect(1, failed=1).says(step)
        control.run(step)
        example.run("-q").expect(passed=1)
        control.run(f"GRANT SELECT ON {server.developers_arguments['database']}.* TO '{name}'@'%'")
        run = example.run("-q").expect(1, failed=1)
        run.says("no user for the app's connections", "CREATE USER IF NOT EXISTS 'arena_app_")
        run.says("GRANT ALL ON `arena\\_%`.*")
    finally:
        control.run(f"DROP USER '{name}'@'%'")
