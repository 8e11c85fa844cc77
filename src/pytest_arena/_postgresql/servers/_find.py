"""Finds the PostgreSQL server for the test databases, or starts one."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pytest_arena._postgresql import STANDARD_DATABASES
from pytest_arena._postgresql._control import (
    ControlFailure,
    identifier,
    open_control,
)
from pytest_arena._postgresql.servers._programs import (
    OLDEST,
    folders,
    read_programs,
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

_PORT = 5432
# "" is the database of a URL without a database.
NAMES_NO_TEST_DATABASE = {"", *STANDARD_DATABASES}
_SOCKETS = ("/var/run/postgresql", "/tmp")  # noqa: S108 - the servers' default folders
# One row: the server's product and version, and the role's rights.
_LOGIN = """
SELECT version(), current_setting('server_version_num')::int / 10000,
       current_setting('server_version'), rolcreatedb OR rolsuper, pg_is_in_recovery()
FROM pg_catalog.pg_roles WHERE rolname = current_user
"""


class PostgreSQLSearch(ServerSearch):
    """The sources of PostgreSQL's servers."""

    shown = "PostgreSQL"
    form = "ARENA_DATABASE=postgresql://user@host:5432/postgres pytest …"
    fix = "pip install 'pytest-arena[postgresql]'"
    host_variable = "PGHOST"

    def local_places(self) -> Iterator[tuple[str, int]]:
        """Yield PGHOST, or the usual sockets and the loopback port."""
        port = port_of("PGPORT", _PORT)
        host = os.environ.get("PGHOST", "")
        if host and is_here(host):
            yield host, port
            return
        for folder in _socket_folders(port):
            yield folder, port
        yield "127.0.0.1", port

    def users(self) -> Sequence[str]:
        """Return PGUSER, the user of the system, and ``postgres``."""
        return usual_users(os.environ.get("PGUSER", ""), "postgres")

    def login(self, host: str, port: int, user: str) -> Address:
        """Return the address of a local server for a user."""
        password = os.environ.get("PGPASSWORD", "")
        return Address(
            "postgresql", host, port, user, "postgres", password, TURN_SECONDS
        )

    def read_url(self, text: str) -> Address:
        """Read a URL of one server. libpq's variables replace missing parts of the URL."""
        url = parse_url(text, {"postgresql", "postgres"}, "PostgreSQL's")
        options: dict[str, Any] = {
            "host": unquote(url.host or ""),
            "user": url.username,
            "password": url.password,
            **url.query,
        }
        port = int(url.port or port_of("PGPORT", _PORT))
        host = options["host"]
        if not isinstance(host, str) or "," in host:
            raise Unavailable("the URL names several hosts, and pytest-arena needs one")
        places = [host, os.environ.get("PGHOST", ""), *_socket_folders(port)]
        return Address(
            "postgresql",
            next(filter(None, places), "localhost"),
            port,
            options["user"] or os.environ.get("PGUSER") or os_user(),
            url.database or "postgres",
            options["password"] or os.environ.get("PGPASSWORD", ""),
            TURN_SECONDS,
        )

    def enter(self, address: Address, where: str, *, seconds: int = 10) -> Server:
        """Log in and check the server, without changing it. ``where`` follows its version."""
        try:
            with closing(open_control(address, seconds=seconds)) as control:
                rows = control.rows(_LOGIN)
        except ControlFailure as error:
            raise Unavailable(_reason(address, error)) from error
        [(product, major, version, may_create, is_standby)] = rows
        if not product.startswith("PostgreSQL"):
            raise Unavailable(f"{address.server} is {product}, not PostgreSQL")
        if major < OLDEST:
            raise Unavailable(
                f"the server on {address.server} is PostgreSQL {version}, and pytest-arena needs "
                f"{OLDEST} or newer",
                fix="use a newer server, for example: docker run -p 5433:5432 postgres:17",
            )
        if is_standby:
            raise Unavailable(f"the server on {address.server} is a read-only standby")
        version, _, _ = version.partition(" ")
        server = Server(address, f"PostgreSQL {version}{where}")
        if not may_create:
            fix = f"ALTER ROLE {identifier(address.user)} CREATEDB"
            if address.database not in NAMES_NO_TEST_DATABASE:
                fix += (
                    "\nor arena_isolation = rollback   "
                    f"(tests use {address.database} itself, and never commit there)"
                )
            raise CreatesNone(server, fix=fix)
        return server

    def usable_without_rights(self, server: Server, config: Config) -> Server | None:
        """Return the server if ``rollback`` can use the URL's database itself."""
        can_be_used = server.address.database not in NAMES_NO_TEST_DATABASE
        if config.isolation == "rollback" and can_be_used:
            return replace(server, is_named=True)
        return None

    def starters(self, config: Config) -> Iterator[Callable[[], Server]]:
        """Yield a function for each folder of programs, which starts their server."""
        from pytest_arena._postgresql.servers._cluster import CLUSTERS  # noqa: PLC0415 - not on Windows

        def start(folder: Path) -> Server:
            return CLUSTERS.find(read_programs(folder), cache=config.cache)

        for folder in folders():
            yield partial(start, folder)


SEARCH = PostgreSQLSearch()


def _socket_folders(port: int) -> list[str]:
    return [folder for folder in _SOCKETS if Path(folder, f".s.PGSQL.{port}").exists()]


def _reason(address: Address, error: ControlFailure) -> str:
    """Return why a login failed, in libpq's words."""
    lines = str(error).strip().splitlines()
    text = redact(lines[-1] if lines else "no reason")
    if error.is_crowded:
        return f"the server on {address.server} has no free connection: {text}"
    if error.is_down:
        return f"nothing answers on {address.server} ({text})"
    return f"{address.server} refuses role {address.user}: {text}"
