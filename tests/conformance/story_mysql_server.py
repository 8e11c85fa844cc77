"""A MySQL or MariaDB server for the stories: the developer's database, and a login for the runs.

Nothing here goes by way of pytest-arena: what it has touched or left is to be seen from outside.
"""

from __future__ import annotations

import atexit
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pymysql
import pytest
from sqlalchemy.engine import URL, make_url

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SERVER_URL", "StoryMySQLServer", "server_arguments"]

SERVER_URL = os.environ.get("TESTS_MYSQL", "mysql://root@127.0.0.1:3306/")

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


def server_arguments() -> dict[str, Any]:
    """Return the login of the suite's server, for PyMySQL. Skip the test if no server answers."""
    url = make_url(SERVER_URL)
    login = {
        "host": url.host or "127.0.0.1",
        "port": url.port or 3306,
        "user": url.username,
        "password": url.password or "",
    }
    try:
        pymysql.connect(**login, ssl_disabled=True, connect_timeout=2).close()
    except pymysql.Error as error:
        pytest.skip(f"no MySQL or MariaDB on {url!r}: {error}")
    return login


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
        [(version,)] = self._run("SELECT VERSION()")
        self.version = str(version)

    def _run(self, statement: str) -> list[tuple[Any, ...]]:
        with self._control.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    @property
    def entrance(self) -> dict[str, Any]:
        """The login of the runs."""
        return {**self._login, "user": self._name, "password": self._password}

    @property
    def developers_arguments(self) -> dict[str, Any]:
        """The developer's login to the developer's database."""
        return {**self._login, "database": self._name}

    def url(self, driver: str) -> URL:
        """Return the server's URL, with the login of the runs."""
        return _url(driver, self.entrance)

    def developers_url(self, driver: str) -> URL:
        """Return the URL of the developer's own database, with the developer's login."""
        return _url(driver, self.developers_arguments)

    @contextmanager
    def without_process(self) -> Iterator[None]:
        """Take the right PROCESS from the login of the runs."""
        self._run(f"REVOKE PROCESS ON *.* FROM '{self._name}'@'%'")
        yield
        self._run(f"GRANT PROCESS ON *.* TO '{self._name}'@'%'")

    def fill_developers(self) -> None:
        """Make it as it was at first."""
        self._run(f"USE {self._name}")
        for statement in _FILL:
            self._run(statement)

    def developers(self) -> object:
        """Return it as it stands."""
        self._run(f"USE {self._name}")
        return [self._run(statement) for statement in _TOUCHES]

    def _made(self) -> list[tuple[str, str]]:
        """Return the databases that runs of this login have registered, and their kinds."""
        made: list[tuple[str, str]] = []
        for (registry,) in self._run("SHOW DATABASES LIKE 'arena\\_registry\\_%'"):
            question = f"SELECT name, kind FROM {registry}.made WHERE owner LIKE '{self._name}@%'"
            with suppress(pymysql.Error):  # another test has dropped it meanwhile
                made += self._run(question)
        return made

    def left(self) -> list[str]:
        """Return what the runs have made and not dropped, but for templates and kept databases."""
        return [name for name, kind in self._made() if kind not in {"template", "kept"}]

    def _clean_up(self) -> None:
        """Drop what the runs have left."""
        for name, _ in self._made():
            self._run(f"DROP DATABASE IF EXISTS `{name}`")
        for (registry,) in self._run("SHOW DATABASES LIKE 'arena\\_registry\\_%'"):
            for table in ("made", "run"):
                with suppress(pymysql.Error):  # as above
                    self._run(f"DELETE FROM {registry}.{table} WHERE owner LIKE '{self._name}@%'")
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
