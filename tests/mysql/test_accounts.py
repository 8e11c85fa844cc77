"""The app connects with the rights that its user has on this server, or in the schema."""

from __future__ import annotations

import os
import secrets
import signal
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_arena._mysql._control import MySQLControl, open_control
from pytest_arena._mysql._server_registry import MySQLRegistry
from pytest_arena._mysql.accounts._grants import Grant, UnreadableGrantError, grants_on
from pytest_arena._values import Address, ServerLogin
from tests.mysql.private_servers import place_for_servers
from tests.mysql.shop import shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer
    from tests.example import Example


@pytest.fixture
def root(server: StoryMySQLServer) -> Address:
    """The server, with a login that may create users."""
    login = server.developers_arguments
    return Address("mysql", login["host"], login["port"], login["user"], "", login["password"])


@pytest.fixture
def control(root: Address) -> Iterator[MySQLControl]:
    """A connection with that login."""
    with closing(open_control(root)) as opened:
        yield opened


@pytest.fixture
def user(control: MySQLControl) -> Iterator[str]:
    """A user of the app, without rights."""
    name = f"app_{secrets.token_hex(4)}"
    control.run(f"CREATE USER '{name}'@'%' IDENTIFIED BY 'pw'")
    yield name
    control.run(f"DROP USER '{name}'@'%'")


# The rights that the line of a login without them names.
RIGHTS = (
    "GRANT CREATE USER, PROCESS, {admin} ON *.* TO {0}",
    "GRANT SELECT ON mysql.* TO {0}",
    "GRANT ALL ON `arena\\_%`.* TO {0} WITH GRANT OPTION",
)


def rights_for(control: MySQLControl, user: str) -> list[str]:
    """Return the statements that give a user the rights."""
    admin = (
        "CONNECTION ADMIN"
        if "MariaDB" in str(control.rows("SELECT VERSION()"))
        else "CONNECTION_ADMIN"
    )
    return [statement.format(user, admin=admin) for statement in RIGHTS]


@pytest.fixture
def maker(root: Address, control: MySQLControl) -> Iterator[Address]:
    """A login for runs that may create users, and no more. Nothing of it is left."""
    name = f"maker_{secrets.token_hex(4)}"
    control.run(f"CREATE USER '{name}'@'%' IDENTIFIED BY 'pw'")
    for statement in rights_for(control, f"'{name}'@'%'"):
        control.run(statement)
    login = ServerLogin(name, "pw")
    yield root.as_(login)
    with closing(MySQLRegistry(root.as_(login))) as own:
        own.sweep(everything=True)
    control.run(f"DROP USER '{name}'@'%'")


def shop_of(server: StoryMySQLServer, folder: Path, user: str, maker: Address) -> Example:
    """Return the shop, whose engine has the app's user."""
    url = server.developers_url("mysql+asyncmy")
    apps = url.set(username=user, password="pw")  # noqa: S106 - of a test
    example = shop(server, folder)
    example = example.change(
        "app.py",
        server.developers_url("mysql+asyncmy").render_as_string(hide_password=False),
        apps.render_as_string(hide_password=False),
    )
    runs = server.url("mysql").render_as_string(hide_password=False)
    by_maker = f"mysql://{maker.user}:{maker.password}@{maker.server}/"
    return example.change("pytest.ini", runs, by_maker)


def left_users(control: MySQLControl, names: Path) -> list[str]:
    """Return the users that the stories have noted, and that still exist."""
    noted = {line.partition("@")[0] for line in names.read_text().splitlines()}
    assert noted
    assert all(name.startswith("arena_user_") for name in noted)
    existing = {name for (name,) in control.rows("SELECT user FROM mysql.user")}
    return sorted(noted & existing)


GRANTED = """
from pathlib import Path
import pytest
from app import Item, engine
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError


async def run(statement):
    async with engine.begin() as connection:
        return (await connection.execute(text(statement))).scalar()


@pytest.fixture(autouse=True)
async def names():
    name = await run("SELECT CURRENT_USER()")
    with Path("names").open("a") as file:
        file.write(f"{name}\\n")


@pytest.mark.parametrize("turn", [1, 2])
async def test_the_rights(client, db_session, arena, turn):
    assert (await client.post("/items/pear")).json() == 2
    with pytest.raises((OperationalError, ProgrammingError), match="1142"):
        await run("DELETE FROM item")
    with pytest.raises((OperationalError, ProgrammingError), match="1142"):
        await run("SELECT user FROM mysql.user")
    with pytest.raises((OperationalError, ProgrammingError), match="1142"):
        await db_session.execute(text("DELETE FROM item"))
    async with arena.session(past_policies=True) as session:
        await session.delete(await session.get(Item, 1))
        await session.commit()
        assert (await client.get("/items")).json() == ["pear"]
        # The next test has another copy.
        await session.execute(text("ALTER TABLE item ADD COLUMN late INT"))


def test_a_sync_session(db_session):
    with pytest.raises((OperationalError, ProgrammingError), match="1142"):
        db_session.execute(text("DELETE FROM item"))


def test_a_raw_connection(arena):
    import pymysql
    from sqlalchemy.engine import make_url

    url = make_url(arena.url)
    connection = pymysql.connect(host=url.host, port=url.port, user=url.username,
        password=url.password, database=url.database)
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM item")
        with pytest.raises(pymysql.err.OperationalError, match="1142"):
            cursor.execute("DELETE FROM item")
    connection.close()
"""


def test_the_grants_of_the_apps_user(
    server: StoryMySQLServer, tmp_path: Path, control: MySQLControl, user: str, maker: Address
) -> None:
    """A missing grant shows in each copy. A session past the policies has all rights."""
    name = server.developers_arguments["database"]
    control.run(f"GRANT SELECT, INSERT ON {name}.* TO '{user}'@'%'")
    before = control.rows(f"SHOW GRANTS FOR '{user}'@'%'")
    run = shop_of(server, tmp_path, user, maker).with_files(test_granted=GRANTED).run("-q")
    run.expect(passed=4).never_says("do not act", user)
    assert left_users(control, tmp_path / "project" / "names") == []
    assert control.rows(f"SHOW GRANTS FOR '{user}'@'%'") == before


DENIED = """
from app import engine
from sqlalchemy import text


async def test_it(client):
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM item"))
"""


@pytest.mark.slow
def test_the_report_of_a_missing_grant(
    server: StoryMySQLServer, tmp_path: Path, control: MySQLControl, user: str, maker: Address
) -> None:
    """It says who the user in the server's error is, and what to do."""
    name = server.developers_arguments["database"]
    control.run(f"GRANT SELECT ON {name}.* TO '{user}'@'%'")
    run = shop_of(server, tmp_path, user, maker).with_files(test_it=DENIED).run("-q")
    run.expect(1, failed=1).says("the app works as arena_user_… in tests", "next: GRANT")


SCRIPT = """
CREATE TABLE item (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50));
CREATE TABLE line (id INT AUTO_INCREMENT PRIMARY KEY, item_id INT);
CREATE VIEW mine AS SELECT * FROM item WHERE name = CURRENT_USER();
DELIMITER //
CREATE PROCEDURE add_item() BEGIN INSERT INTO item (name) VALUES ('called'); END //
DELIMITER ;
GRANT SELECT ON item TO '{user}'@'%';
GRANT INSERT (name), UPDATE (name) ON item TO '{user}'@'%';
GRANT EXECUTE ON PROCEDURE add_item TO '{user}'@'%';
"""
OF_SCHEMA = """
import pytest
from app import engine
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError


@pytest.mark.parametrize("statement, number", [
    ("UPDATE item SET name = 'x' WHERE name = 'seeded'", ""),
    ("CALL add_item()", ""),
    ("UPDATE item SET id = 7", "1143"),
    ("SELECT * FROM line", "1142"),
])
async def test_it(client, statement, number):
    async with engine.begin() as connection:
        if not number:
            await connection.execute(text(statement))
            return
        with pytest.raises((OperationalError, ProgrammingError), match=number):
            await connection.execute(text(statement))
"""


@pytest.mark.slow
def test_the_grants_of_a_schema(
    server: StoryMySQLServer, tmp_path: Path, control: MySQLControl, user: str, maker: Address
) -> None:
    """They act on the copies, from a stored template as well. The user keeps none of them."""
    before = control.rows(f"SHOW GRANTS FOR '{user}'@'%'")
    example = shop_of(server, tmp_path, user, maker).change("pytest.ini", "app:Base", "schema.sql")
    example = example.with_paths({"schema.sql": SCRIPT.replace("{user}", user)})
    example = example.with_files(test_schema=OF_SCHEMA)
    for _ in range(2):
        run = example.run("-q").expect(passed=4)
        run.says(f"USER() and CURRENT_USER() are not {user} in mine").never_says("do not act")
    assert control.rows(f"SHOW GRANTS FOR '{user}'@'%'") == before


UNKNOWN = """
import pytest
from app import engine
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError


async def test_it(client):
    assert (await client.post("/items/pear")).json() == 2
    async with engine.begin() as connection:
        await connection.execute(text("TRUNCATE line"))
        with pytest.raises((OperationalError, ProgrammingError), match="1142"):
            await connection.execute(text("SELECT user FROM mysql.user"))
"""


@pytest.mark.slow
def test_a_user_that_the_server_does_not_know(
    server: StoryMySQLServer, tmp_path: Path, maker: Address
) -> None:
    """The app has all rights on its database, and none on the server, as most apps have."""
    run = shop_of(server, tmp_path, "stranger", maker).with_files(test_unknown=UNKNOWN).run("-q")
    run.expect(passed=1).never_says("do not act")


@pytest.mark.slow
def test_a_user_with_a_role(
    server: StoryMySQLServer, tmp_path: Path, control: MySQLControl, user: str, maker: Address
) -> None:
    """pytest-arena does not give roles, and says so."""
    control.run(f"CREATE ROLE {user}_role; GRANT {user}_role TO '{user}'@'%'")
    try:
        run = shop_of(server, tmp_path, user, maker).with_files(test_unknown=UNKNOWN).run("-q")
        run.expect(passed=1).says(f"the grants of {user} do not act", f"{user}_role")
    finally:
        control.run(f"DROP ROLE {user}_role")


@pytest.mark.slow
def test_a_private_server(server: StoryMySQLServer, tmp_path: Path) -> None:
    """It has the app's user before the schema is built, which grants something to it."""
    name = f"app_{secrets.token_hex(4)}"
    example = shop_of(server, tmp_path, name, Address("mysql", "", 0, "", "")).change(
        "pytest.ini", "app:Base", "schema.sql"
    )
    example = example.with_paths({"schema.sql": SCRIPT.replace("{user}", name)})
    example = example.with_files(test_schema=OF_SCHEMA)
    with place_for_servers() as place:
        run = example.run("-q", "--arena-database=own", env={"ARENA_CLUSTERS": str(place)})
    run.expect(passed=4).never_says("do not act")


@pytest.mark.slow
def test_a_private_server_and_a_schema_without_grants(
    server: StoryMySQLServer, tmp_path: Path
) -> None:
    """The app has all rights on its database. No line asks for grants on the private server."""
    name = f"app_{secrets.token_hex(4)}"
    example = shop_of(server, tmp_path, name, Address("mysql", "", 0, "", ""))
    example = example.with_files(test_unknown=UNKNOWN)
    with place_for_servers() as place:
        run = example.run("-q", "--arena-database=own", env={"ARENA_CLUSTERS": str(place)})
    run.expect(passed=1).never_says("do not act")


STAYS = """
from app import engine
from sqlalchemy import text


async def test_it(client):
    async with engine.begin() as connection:
        await connection.execute(text("CREATE ROLE {role}"))
"""


@pytest.mark.slow
def test_a_role_that_a_test_creates(
    server: StoryMySQLServer, tmp_path: Path, control: MySQLControl, maker: Address
) -> None:
    """It stays on the server, and a line names the test."""
    role = f"role_{secrets.token_hex(4)}"
    story = STAYS.replace("{role}", role)
    try:
        run = shop_of(server, tmp_path, maker.user, maker).with_files(test_it=story).run("-q")
        run.expect(passed=1).says("test_it sends CREATE ROLE, which stays on the server")
    finally:
        control.run(f"DROP ROLE IF EXISTS {role}")


PLAIN = "async def test_it(client):\n    await client.get('/items')\n"


@pytest.mark.slow
def test_a_login_that_may_not_create_users(server: StoryMySQLServer, tmp_path: Path) -> None:
    """The app works as pytest-arena's login, and a line says so."""
    example = shop(server, tmp_path).with_files(test_it=PLAIN)
    example.run("-q").expect(passed=1).says(
        "the grants of root do not act", "lacks CREATE USER", "GRANT CREATE USER"
    )


def test_a_killed_run(root: Address, control: MySQLControl, tmp_path: Path) -> None:
    """The next run drops its users."""
    registry = f"arena_registry_{secrets.token_hex(4)}"
    names = tmp_path / "names"
    try:
        child = os.fork()
        if not child:
            login, _ = MySQLRegistry(root, registry=registry).create_account()
            names.write_text(login.user)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        assert left_users(control, names)
        with closing(MySQLRegistry(root, registry=registry)):
            assert left_users(control, names) == []
    finally:
        control.run(f"DROP DATABASE IF EXISTS {registry}")


@pytest.mark.parametrize(
    "lines, grants",
    [
        (["GRANT USAGE ON *.* TO `a`@`%`"], []),
        (["GRANT SELECT, FILE ON *.* TO `a`@`%`"], [Grant("SELECT")]),
        (["GRANT ALL PRIVILEGES ON `shop`.* TO `a`@`%`"], [Grant("ALL PRIVILEGES")]),
        (["GRANT SELECT ON `shops`.* TO `a`@`%`"], []),
        (
            ["GRANT SELECT ON `sh%`.* TO `a`@`%`", "GRANT DROP ON `shop`.* TO `a`@`%`"],
            [Grant("DROP")],
        ),
        (["GRANT SELECT ON `sho\\_`.* TO `a`@`%`"], []),
        (
            ["GRANT SELECT (`a`), INSERT ON `shop`.`t` TO `a`@`%`"],
            [Grant("SELECT (`a`), INSERT", "", "t")],
        ),
        (
            ["GRANT EXECUTE ON PROCEDURE `shop`.`p` TO `a`@`%`"],
            [Grant("EXECUTE", "PROCEDURE ", "p")],
        ),
    ],
)
def test_grants_on_a_database(lines: list[str], grants: list[Grant]) -> None:
    """Patterns, tables and programs; of the server's rights those that a database can have."""
    assert grants_on("shop", lines) == grants


@pytest.mark.parametrize("line", ["GRANT `r` TO `a`@`%`", "REVOKE SELECT ON `shop`.* FROM `a`@`%`"])
def test_grants_that_cannot_be_given(line: str) -> None:
    """A role, and a part that is revoked."""
    with pytest.raises(UnreadableGrantError):
        grants_on("shop", [line])
