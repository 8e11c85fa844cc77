"""Finds the server for the test databases.

``arena_database`` may name the server by a URL. Without a URL, the server is a local service of
this machine. If no service can be used, it is a private server of installed programs.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._mysql import _errors as messages
from pytest_arena._mysql._arguments import PORT
from pytest_arena._mysql._control import (
    TLS_OPTIONS,
    MySQLFailure,
    open_control,
    tls_context,
)
from pytest_arena._mysql.servers._mysql_programs import (
    check_version,
    installed,
    read_programs,
    read_version,
)
from pytest_arena._product._server_targets import is_here, os_user
from pytest_arena._product.servers import (
    Server,
    Unavailable,
    check_system,
    first_usable,
    foreign_host,
    named_unusable,
)
from pytest_arena._values import TURN_SECONDS, Address
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL

    from pytest_arena._config._read import Config
    from pytest_arena._mysql._control import MySQLControl

_FORM = "ARENA_DATABASE=mysql://user@host:3306/ pytest …"
_FIX = f"apt install mariadb-server   # or mysql-server\nor {_FORM}"
_SOCKETS = (
    "/run/mysqld/mysqld.sock",
    "/var/lib/mysql/mysql.sock",
    "/tmp/mysql.sock",  # noqa: S108 - the servers' default files
)
_KNOCK_SECONDS = 1  # a local server answers within a millisecond
_MAY_CREATE = """
SELECT COUNT(*) FROM (
    SELECT grantee FROM information_schema.user_privileges WHERE privilege_type = 'CREATE'
    UNION ALL SELECT grantee FROM information_schema.schema_privileges
    WHERE privilege_type = 'CREATE' AND 'arena_live' LIKE table_schema) AS rights
"""


def find_server(config: Config) -> Server:
    """Return the server that ``arena_database`` names, or the first usable server.

    Raises:
        ServerError: no server can be used. The error lists each source and the reason.
    """
    if config.server_url:
        return _named_server(config)
    sources = {
        "a local service": local_service,
        "a private server": private_server,
    }
    return first_usable("MySQL or MariaDB", sources, config, fix=_FIX)


def local_service(config: Config) -> Server:
    """Return the first server of this machine that lets a usual login create databases.

    The logins are the user of the system and ``root``. Sockets are tried before TCP.

    Raises:
        Unavailable: no such server exists, or ``arena_database = own``.
    """
    reasons = foreign_host(config, "MYSQL_HOST")
    for place, port in _local_places():
        for user in filter(None, dict.fromkeys((os_user(), "root"))):
            password = os.environ.get("MYSQL_PWD", "")
            address = Address("mysql", place, port, user, "", password, TURN_SECONDS)
            try:
                return enter(
                    address,
                    f", a local service on {address.server}",
                    timeout=_KNOCK_SECONDS,
                )
            except Unavailable as reason:
                reasons.append(str(reason))
    raise Unavailable("; ".join(dict.fromkeys(reasons)))


def private_server(config: Config) -> Server:
    """Return a private server of the first installed programs that work.

    Programs of the product that ``arena_database`` names are tried first.

    Raises:
        Unavailable: no program works. The error lists the reasons.
    """
    check_system()
    from pytest_arena._mysql.servers._private_mysql import PRIVATE_SERVERS  # noqa: PLC0415 - not on Windows

    reasons = []
    usable = []
    for program in installed():
        try:
            usable.append(read_programs(program))
        except Unavailable as reason:
            reasons.append(str(reason))
    usable.sort(key=lambda programs: programs.product.lower() != config.database)
    for programs in usable:
        try:
            return PRIVATE_SERVERS.find(programs, cache=config.cache)
        except Unavailable as reason:
            reasons.append(str(reason))
    raise Unavailable("; ".join(reasons) or "neither mariadbd nor mysqld is installed")


def _local_places() -> Iterator[tuple[str, int]]:
    port = PORT
    with suppress(ValueError):
        port = int(os.environ.get("MYSQL_TCP_PORT", PORT))
    if port == PORT:
        real_paths = set()
        for file in _SOCKETS:
            path = Path(file)
            if path.exists() and path.resolve() not in real_paths:
                real_paths.add(path.resolve())
                yield file, port
    yield "127.0.0.1", port


def _named_server(config: Config) -> Server:
    try:
        address = read_url(config.server_url, TURN_SECONDS)
        return enter(address, f" on {address.server}, from arena_database")
    except Unavailable as reason:
        raise named_unusable(config, reason, _FORM) from reason


def read_url(text: str, patience: float = 0.0) -> Address:
    """Read a URL of one server.

    Raises:
        Unavailable: the URL names another product, or cannot be read.
    """
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - the command `arena` does without it
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - as above

    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise Unavailable(
            "the URL cannot be read. pytest-arena needs a URL of one server"
        ) from error
    if url.get_backend_name() not in {"mysql", "mariadb"}:
        raise Unavailable(f"{url.get_backend_name()} is not MySQL's")
    socket = url.query.get("unix_socket", "")
    host = socket if isinstance(socket, str) and socket else url.host or "127.0.0.1"
    user = url.username or os_user()
    password = str(url.password or os.environ.get("MYSQL_PWD", ""))
    address = Address("mysql", host, url.port or PORT, user, "", password, patience)
    return replace(address, tls=_tls_options(url))


def _tls_options(url: URL) -> tuple[tuple[str, str], ...] | None:
    """Return the options for TLS in a URL, None if the URL has no such option."""
    options = []
    for name, value in sorted(url.query.items()):
        if name in TLS_OPTIONS:
            options.append((name, str(value)))
        elif name.startswith("ssl"):
            names = ", ".join(TLS_OPTIONS)
            raise Unavailable(f"the URL's option {name} is none of: {names}")
    if not options:
        return None
    try:
        tls_context(tuple(options))
    except OSError as error:
        raise Unavailable(
            f"the URL's options for TLS cannot be used: {error}"
        ) from error
    return tuple(options)


def enter(address: Address, where: str, *, timeout: float = 10) -> Server:
    """Log in and check the server, without changing it. ``where`` follows its version.

    Raises:
        Unavailable: pytest-arena cannot use the server.
    """
    try:
        return _entered(address, where, timeout)
    except MySQLFailure as error:
        failure = error
    if failure.may_need_tls and address.tls is None and not address.is_socket:
        with suppress(MySQLFailure):
            return _entered(replace(address, tls=()), where, timeout)
    raise Unavailable(_reason(address, failure)) from failure


def _entered(address: Address, where: str, timeout: float) -> Server:
    control = open_control(address, timeout=timeout, patience=address.patience)
    with closing(control):
        shown = f"{_checked(control, address)}{where}"
        if address.tls is None and control.offers_tls and not is_here(address.host):
            address = replace(address, tls=())  # the drivers of the app encrypt, too
        return Server(address, shown)


def _reason(address: Address, error: MySQLFailure) -> str:
    text = redact(str(error).splitlines()[0])
    if "[SSL" in text:
        return f"TLS to {address.server} cannot be used: {text}"
    if error.has_no_answer:
        return f"nothing answers on {address.server} ({text})"
    if error.is_crowded:
        return f"the server on {address.server} has no free connection: {text}"
    return f"{address.server} refuses {address.user}: {text}"


def _checked(control: MySQLControl, address: Address) -> str:
    """Return the server's product and version."""
    [(text, is_read_only)] = control.rows("SELECT VERSION(), @@GLOBAL.read_only")
    product, version = read_version(text)
    check_version(product, version, f"the server on {address.server}")
    if is_read_only not in (0, "OFF"):
        raise Unavailable(
            f"the server on {address.server} is read-only, as a replica is"
        )
    if control.rows(_MAY_CREATE) == [(0,)]:
        raise Unavailable(
            f"{address.user} on {address.server} may not create databases",
            fix=messages.GRANT.format(user=address.user),
        )
    return f"{product} {version}"
