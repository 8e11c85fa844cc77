"""Servers and logins that cannot be used, or with which a test may pass wrongly."""

from __future__ import annotations

import signal
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.engine import URL

from pytest_arena._values import Address
from tests.mysql.server import PrivateServer, connect
from tests.mysql.shop import shop_on
from tests.servers.restarts import restarting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.example import Example


_DEVELOPERS = (
    "CREATE DATABASE shop",
    "CREATE TABLE shop.dancers (id INT PRIMARY KEY, name VARCHAR(50))",
    "INSERT INTO shop.dancers VALUES (1, 'the developer')",
    "CREATE USER poor@localhost IDENTIFIED BY 'wOrd7'",
)
_TOUCHES = (
    "SELECT * FROM shop.dancers",
    "CHECKSUM TABLE shop.dancers",
    "SHOW TABLES FROM shop",
    "SHOW GRANTS FOR poor@localhost",
    "SHOW GLOBAL VARIABLES LIKE 'sql_mode'",
)


class Bad:
    """A server, and a shop whose engine has the URL of the developer's database."""

    def __init__(self, *options: str) -> None:
        self.server = PrivateServer(*options)
        for statement in _DEVELOPERS:
            self.run(statement)

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(connect(self.server.socket)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def touches(self) -> list[object]:
        return [self.run(statement) for statement in _TOUCHES]

    def shop(self, folder: Path, user: str = "root") -> Example:
        """Return the project, in which pytest-arena has a login."""
        password = "wOrd7" if user == "poor" else None
        by_socket = URL.create(
            "mysql", user, password, "localhost", query={"unix_socket": self.server.socket}
        )
        apps = by_socket.set(
            drivername="mysql+asyncmy", username="root", password=None, database="shop"
        )
        return shop_on(apps, by_socket, folder).with_files(test_it=PLAIN)


PLAIN = """
async def test_it(client):
    assert (await client.post("/dancers/Dune")).status_code == 201


async def test_the_next(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


@pytest.fixture(scope="module")
def usual() -> Iterator[Bad]:
    """A server whose binary log needs trust."""
    made = Bad("--log-bin")
    yield made
    made.server.stop()


@pytest.fixture
def bad(usual: Bad) -> Iterator[Bad]:
    """The server. The developer's rows are as before afterwards."""
    before = usual.touches()
    yield usual
    assert usual.touches() == before


def test_a_login_that_may_create_nothing(bad: Bad, tmp_path: Path) -> None:
    run = bad.shop(tmp_path, "poor").run("-q").expect(1, failed=1)
    run.says("poor", "may not create databases", "pytest.ini", "GRANT ALL ON `arena", "[A301]")
    run.never_says("wOrd7")


def test_a_version_that_is_too_old(tmp_path: Path) -> None:
    bad = Bad("--version=10.3.39-MariaDB")
    run = bad.shop(tmp_path).run("-q").expect(1, failed=1)
    run.says("is MariaDB 10.3.39", "needs 10.6 or newer", "pytest.ini", "[A301]")
    assert bad.run("SHOW DATABASES LIKE 'arena%'") == []
    bad.server.stop()


def test_a_full_server_that_writes_names_in_lower_case(tmp_path: Path) -> None:
    """Whichever of pytest-arena's connections finds none. A later run is green."""
    bad = Bad("--lower-case-table-names=1", "--max-connections=10")
    before = bad.touches()
    for number in (9, 10):
        with ExitStack() as taken:
            for _ in range(number):
                taken.enter_context(closing(connect(bad.server.socket)))
            run = bad.shop(tmp_path / str(number)).run("-q")
        assert run.status == 1, run.output
        run.says("ny connections", "next:  pytest -n 2")  # PyMySQL 1.1.0 cuts the message
    bad.shop(tmp_path).run("-q").expect(passed=2)
    assert bad.touches() == before
    bad.server.stop()


def test_a_server_that_restarts(bad: Bad, tmp_path: Path) -> None:
    """Only the test whose connection was lost fails."""
    server = bad.server
    [pid_file] = (server.folder / "data").glob("*.pid")
    project = restarting(
        bad.shop(tmp_path),
        Address(server.socket, 0, "root", ""),
        command=server.command,
        pid_file=str(pid_file),
        socket=server.socket,
        control="pytest_arena._mysql._control",
        options={"start_new_session": True},
        signals=(signal.SIGTERM, signal.SIGKILL),
    )
    project.run("-q").expect(1, passed=4, failed=1).says("test_in_a_transaction")
    server.end(int(pid_file.read_text()))
    server.start()
