"""Finds the MySQL or MariaDB server for the test databases, or starts one."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._mysql import _errors as messages
from pytest_arena._mysql._arguments import PORT
from pytest_arena._mysql._control import (
    MySQLFailure,
    open_control,
)
from pytest_arena._mysql.servers._mysql_programs import (
    check_version,
    installed,
    read_programs,
    read_version,
)
from pytest_arena._product._server_targets import is_here, os_user
from pytest_arena._product.servers import (
    CreatesNone,
    Server,
    ServerSearch,
    Unavailable,
    parse_url,
    port_of,
    usual_users,
)
from pytest_arena._values import TURN_SECONDS, Address
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_arena._config._read import Config
    from pytest_arena._mysql._control import MySQLControl

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


class MySQLSearch(ServerSearch):
    """The sources of MySQL's and MariaDB's servers."""

    shown = "MySQL or MariaDB"
    form = "ARENA_DATABASE=mysql://user@host:3306/ pytest …"
    fix = "apt install mariadb-server   # or mysql-server"
    host_variable = "MYSQL_HOST"

    def local_places(self) -> Iterator[tuple[str, int]]:
        """Yield the usual sockets and the loopback port."""
        port = port_of("MYSQL_TCP_PORT", PORT)
        if port == PORT:
            files = {Path(file).resolve(): file for file in reversed(_SOCKETS)}
            for path, file in reversed(files.items()):
                if path.exists():
                    yield file, port
        yield "127.0.0.1", port

    def users(self) -> Sequence[str]:
        """Return the user of the system, and ``root``."""
        return usual_users("root")

    def login(self, host: str, port: int, user: str) -> Address:
        """Return the address of a local server for a user."""
        password = os.environ.get("MYSQL_PWD", "")
        return Address("mysql", host, port, user, "", password, TURN_SECONDS)

    def read_url(self, text: str) -> Address:
        """Read a URL of one server."""
        url = parse_url(text, {"mysql", "mariadb"}, "MySQL's")
        socket = url.query.get("unix_socket", "")
        host = socket if isinstance(socket, str) and socket else url.host or "127.0.0.1"
        user = url.username or os_user()
        password = str(url.password or os.environ.get("MYSQL_PWD", ""))
        if any(name.startswith("ssl") for name in url.query):
            raise Unavailable(
                "the URL has options for TLS, and pytest-arena verifies no certificate",
                fix="remove them: a server that requires TLS or is elsewhere is encrypted",
            )
        return Address(
            "mysql", host, url.port or PORT, user, "", password, TURN_SECONDS
        )

    def enter(self, address: Address, where: str, *, seconds: int = 10) -> Server:
        """Log in and check the server, without changing it. ``where`` follows its version."""
        try:
            return _entered(address, where, seconds)
        except MySQLFailure as error:
            failure = error
        if failure.may_need_tls and not address.is_socket:
            with suppress(MySQLFailure):
                return _entered(replace(address, is_encrypted=True), where, seconds)
        raise Unavailable(_reason(address, failure)) from failure

    def starters(self, config: Config) -> Iterator[Callable[[], Server]]:
        """Yield a function for each installed program, which starts its server.

        Programs of the product that ``arena_database`` names are first.
        """
        from pytest_arena._mysql.servers._private_mysql import PRIVATE_SERVERS  # noqa: PLC0415 - not on Windows

        def start(program: Path) -> Server:
            return PRIVATE_SERVERS.find(read_programs(program), cache=config.cache)

        wanted = {"mariadb": "mariadbd", "mysql": "mysqld"}.get(config.database)
        for program in sorted(installed(), key=lambda file: file.name != wanted):
            yield partial(start, program)


SEARCH = MySQLSearch()


def _entered(address: Address, where: str, seconds: int) -> Server:
    control = open_control(address, timeout=seconds, patience=address.patience)
    with closing(control):
        shown = f"{_checked(control, address)}{where}"
        if control.offers_tls and not is_here(address.host):
            address = replace(
                address, is_encrypted=True
            )  # the drivers of the app encrypt, too
        server = Server(address, shown)
        if control.rows(_MAY_CREATE) == [(0,)]:
            raise CreatesNone(server, fix=messages.GRANT.format(user=address.user))
        return server


def _checked(control: MySQLControl, address: Address) -> str:
    """Return the server's product and version."""
    [(text, is_read_only)] = control.rows("SELECT VERSION(), @@GLOBAL.read_only")
    product, version = read_version(text)
    check_version(product, version, f"the server on {address.server}")
    if is_read_only not in (0, "OFF"):
        raise Unavailable(
            f"the server on {address.server} is read-only, as a replica is"
        )
    return f"{product} {version}"


def _reason(address: Address, error: MySQLFailure) -> str:
    text = redact(str(error).splitlines()[0])
    if error.has_no_answer:
        return f"nothing answers on {address.server} ({text})"
    if error.is_crowded:
        return f"the server on {address.server} has no free connection: {text}"
    return f"{address.server} refuses {address.user}: {text}"
