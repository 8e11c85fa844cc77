"""A MySQL or MariaDB server for the stories: the developer's database, and a login for the runs.

Nothing here goes by way of pytest-arena: what it has touched or left is to be seen from outside.
"""

from __future__ import annotations

import atexit
import os
import secrets
from functools import cache
from typing import Any

import pymysql
from sqlalchemy.engine import URL, make_url

from tests.mysql.server import PrivateServer
from tests.servers.crowded import free_port

# The developer's own may well have the app's tables: what reaches it would go well, and show.
_FILL = (
    "DROP TABLE IF EXISTS dancers",
    "CREATE TABLE dancers (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(200), version INT)",
    "INSERT INTO dancers (name, version) VALUES ('The developer', 1)",
)
_TOUCHES = (
    "SELECT * FROM dancers",
    "SHOW CREATE TABLE dancers",
    "SHOW TABLES",
    "SELECT update_time FROM information_schema.tables WHERE table_schema = DATABASE()",
)


@cache
def server_arguments() -> dict[str, Any]:
    """Return the login of ``TESTS_MYSQL``, else of a MariaDB in memory. Skip without one."""
    if "TESTS_MYSQL" in os.environ:
        url = make_url(os.environ["TESTS_MYSQL"])
        return {
            "host": url.host or "127.0.0.1",
            "port": url.port or 3306,
            "user": url.username,
            "password": url.password or "",
        }
    port = free_port()
    server = PrivateServer("--skip-networking=0", "--bind-address=127.0.0.1", f"--port={port}")
    atexit.register(server.stop)
    return {"host": "127.0.0.1", "port": port, "user": "root", "password": ""}


class StoryMySQLServer:
    """One for each process of tests. The login has PROCESS, and rights on arena's databases."""

    def __init__(self) -> None:
        self._login = server_arguments()
        self._name = f"stories_{secrets.token_hex(6)}"
        self._password = secrets.token_hex(8)
        self._control = pymysql.connect(**self._login, ssl_disabled=True, autocommit=True)
        atexit.register(self._clean_up)
        self._run(f"CREATE USER '{self._name}'@'%' IDENTIFIED BY '{self._password}'")
        self._run(f"GRANT ALL ON `arena\\_%`.* TO '{self._name}'@'%'")
        self._run(f"GRANT PROCESS ON *.* TO '{self._name}'@'%'")
        self._run(f"CREATE DATABASE {self._name}")

    def _run(self, statement: str) -> list[tuple[Any, ...]]:
        with self._control.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    @property
    def entrance(self) -> dict[str, Any]:
        return {**self._login, "user": self._name, "password": self._password}

    @property
    def developers_arguments(self) -> dict[str, Any]:
        return {**self._login, "database": self._name}

    def url(self, driver: str) -> URL:
        return _url(driver, self.entrance)

    def developers_url(self, driver: str) -> URL:
        return _url(driver, self.developers_arguments)

    def fill_developers(self) -> None:
        """Make it as it was at first."""
        self._run(f"USE {self._name}")
        for statement in _FILL:
            self._run(statement)

    def developers(self) -> object:
        """Return it as it stands."""
        self._run(f"USE {self._name}")
        return [self._run(statement) for statement in _TOUCHES]

    def _clean_up(self) -> None:
        """Drop the developer's database and login. Sweeps drop templates that no run uses."""
        self._run(f"DROP DATABASE {self._name}")
        self._run(f"DROP USER '{self._name}'@'%'")
        self._control.close()


def _url(driver: str, login: dict[str, Any]) -> URL:
    return URL.create(
        driver,
        login["user"],
        login["password"] or None,
        login["host"],
        login["port"],
        login.get("database", ""),
    )
