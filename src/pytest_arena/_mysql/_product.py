"""MySQL and MariaDB in a run: where the server is found, its databases and their isolation."""

from __future__ import annotations

import itertools
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy.engine import make_url

from pytest_arena._mysql import FACTS
from pytest_arena._mysql._arguments import PORT
from pytest_arena._mysql._control import open_control
from pytest_arena._mysql._isolation import MySQLIsolation
from pytest_arena._mysql._server_registry import MySQLRegistry
from pytest_arena._product._server_connections import os_user
from pytest_arena._product._server_search import ServerProduct, parse_url, port_of
from pytest_arena._values import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._product import Database, Isolation, Usage
    from pytest_arena._product._server_search import Server
    from pytest_arena._values import ServerLogin

_SOCKETS = (
    "/run/mysqld/mysqld.sock",
    "/var/lib/mysql/mysql.sock",
    "/tmp/mysql.sock",  # noqa: S108 - the servers' default files
)
_MAY_CREATE = """
SELECT COUNT(*) FROM (
    SELECT grantee FROM information_schema.user_privileges WHERE privilege_type = 'CREATE'
    UNION ALL SELECT grantee FROM information_schema.schema_privileges
    WHERE privilege_type = 'CREATE' AND 'arena_live' LIKE table_schema) AS rights
"""


class MySQL(ServerProduct[MySQLRegistry]):
    """MySQL or MariaDB in a run. The first connection finds the server."""

    name = FACTS.name
    usual_driver = "pymysql"
    registry = MySQLRegistry
    form = "ARENA_DATABASE=mysql://user@host:3306/ pytest …"
    fix = (
        "docker run -p 3306:3306 -e MARIADB_ALLOW_EMPTY_ROOT_PASSWORD=1 mariadb:11\n"
        "(pytest-arena uses a server of this machine, and starts none)"
    )
    oldest: ClassVar = {"MariaDB": "10.6", "MySQL": "8.0"}

    def local_logins(self) -> Iterator[Address]:
        """Yield the usual sockets and the loopback port, for the user of the system and root."""
        port = port_of("MYSQL_TCP_PORT", PORT)
        sockets = [file for file in _SOCKETS if port == PORT and Path(file).exists()]
        users = dict.fromkeys(filter(None, (os_user(), "root")))
        for place, user in itertools.product([*sockets, "127.0.0.1"], users):
            yield Address(place, port, user, "", os.environ.get("MYSQL_PWD", ""))

    def read_url(self, text: str) -> Address:
        """Read a URL of one server."""
        url = parse_url(text)
        socket = url.query.get("unix_socket", "")
        host = socket if isinstance(socket, str) and socket else url.host or "127.0.0.1"
        user = url.username or os_user()
        password = str(url.password or os.environ.get("MYSQL_PWD", ""))
        return Address(host, url.port or PORT, user, "", password)

    def ask(self, address: Address, seconds: int) -> tuple[str, str, bool]:
        """Log in, and ask for the version and the rights."""
        with closing(open_control(address, seconds=seconds)) as control:
            # Such as 10.11.19-MariaDB-0+deb12u1.
            [(text,)] = control.rows("SELECT VERSION()")
            may_create = control.rows(_MAY_CREATE) != [(0,)]
        product = "MariaDB" if "mariadb" in text.lower() else "MySQL"
        return product, text.removeprefix("5.5.5-").partition("-")[0], may_create

    def _begin(self, registry: MySQLRegistry, server: Server) -> None:
        del server
        self._login = registry.app_login

    def login_of(self, *_: object) -> ServerLogin:
        """Return the login of the app's connections, whichever login the app has."""
        return self._login

    def template_store(self) -> MySQLRegistry:
        """Return the templates on the server."""
        return self._registry()

    def isolate(self, database: Database, content: Any, uses: Usage) -> Isolation:
        """Return the isolation of a database, by the option. ``auto`` is undo."""
        del database
        isolation = self._config.isolation
        return MySQLIsolation(
            self._registry(),
            content,
            "undo" if isolation == "auto" else isolation,
            login=self._login,
            uses=uses,
            note=self._core.ledger.note,
        )

    def shell(self, where: str) -> list[str]:
        """Return the words of the command that opens a database. The client takes no URL.

        It uses pytest-arena's login.
        """
        url = make_url(where)
        # Without the protocol, `-h localhost` means the usual socket, perhaps of another server.
        place = ["--protocol=tcp", "-h", str(url.host), "-P", str(url.port or PORT)]
        if "unix_socket" in url.query:
            place = ["-S", str(url.query["unix_socket"])]
        login = self._registry().address_of()
        words = ["mysql", "-u", login.user, *place, str(url.database)]
        if login.password:
            words.insert(1, "-p")
        return words


open_product = MySQL


place_kinds = MySQL.place_kinds_of
