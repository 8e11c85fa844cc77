"""The search for a server for the test databases.

``arena_database`` may name the server by a URL. Without a URL, the server is a local service of
this machine. If no service can be used, it is a private server of installed programs. A server of
another machine is used only if ``arena_database`` names it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_arena._product._server_targets import is_here, os_user
from pytest_arena._values import digest
from pytest_arena.errors import ServerError, redact_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sqlalchemy.engine import URL

    from pytest_arena._config._read import Config
    from pytest_arena._values import Address


_WHY = "pytest-arena makes a database for each test, on a server where it may create databases"
_VERSION_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A server that answers. Its login may create databases, unless ``is_named``."""

    address: Address  # of a maintenance database
    shown: str  # its version and origin, for the run's summary
    is_private: bool = False  # whether pytest-arena has started it
    # Whether tests use the database of the address, because the login may create none.
    is_named: bool = False

    def close(self) -> None:
        """End this process' use of the server. Idempotent. It never raises."""

    def stay(self) -> None:
        """Let the server run after this run, because a database was kept."""


class Unavailable(Exception):
    """No usable server was found. The text is the reason, ``fix`` the next step or ""."""

    def __init__(self, reason: str, *, fix: str = "") -> None:
        super().__init__(reason)
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Programs(ABC):
    """A folder with the programs of a server."""

    folder: Path
    version: str  # such as 15.20 or MariaDB-10.11.4
    shown: str  # such as /usr/lib/postgresql/15/bin

    @property
    @abstractmethod
    def server(self) -> Path:
        """The server's program."""

    @property
    def key(self) -> str:
        """The name of the server. Two builds of one version may have different extensions."""
        return f"{self.version}-{digest(str(self.folder))[:8]}"


class ServerSearch(ABC):
    """The sources of a product's servers, in their order."""

    shown: ClassVar[str]
    private: ClassVar[Any]  # its `PrivateServers`, whose module imports this one
    form: ClassVar[str]
    """How a run names a server."""
    fix: ClassVar[str]
    """The next step if no server was found."""
    host_variable: ClassVar[str]
    """The variable with which the product's clients name a server."""

    @abstractmethod
    def read_url(self, text: str) -> Address:
        """Read a URL of one server."""

    @abstractmethod
    def local_places(self) -> Iterator[tuple[str, int]]:
        """Yield the sockets and the loopback port of this machine."""

    @abstractmethod
    def login(self, host: str, port: int, user: str) -> Address:
        """Return the address of a local server for a user."""

    @abstractmethod
    def users(self) -> Sequence[str]:
        """Return the usual users of a local server, with "" for unknown ones."""

    @abstractmethod
    def enter(self, address: Address, where: str, *, seconds: int = 10) -> Server:
        """Log in and check the server, without changing it. ``where`` follows its version."""

    @abstractmethod
    def installed(self, config: Config) -> list[Path]:
        """Return the places of installed programs, the best first."""

    @abstractmethod
    def programs_at(self, place: Path) -> Any:
        """Read the version of installed programs."""

    def find(self, config: Config) -> Server:
        """Return the server that ``arena_database`` names, or the first usable server."""
        if config.server_url:
            return self._named(config)
        sources = {
            "a local service": self.local_service,
            "a private server": self.private_server,
        }
        reasons = []
        for name, find in sources.items():
            try:
                return find(config)
            except Unavailable as reason:
                reasons.append(f"{name}: {' '.join(str(reason).split())}")
        raise ServerError(
            f"there is no {self.shown} for the tests",
            why=_WHY,
            cause="\n".join(reasons),
            fix=f"{self.fix}\nor {self.form}",
        )

    def local_service(self, config: Config) -> Server:
        """Return the first server of this machine that lets a usual login create databases."""
        if config.database == "own":
            raise Unavailable("not asked for, a private server is")
        reasons = []
        host = os.environ.get(self.host_variable, "")
        if host and not is_here(host):
            reasons.append(
                f"{self.host_variable}={host} is another machine, which is used only if "
                "arena_database names it"
            )
        for place, port in self.local_places():
            for user in dict.fromkeys(filter(None, self.users())):
                address = self.login(place, port, user)
                where = f", a local service on {address.server}"
                try:
                    # A local server answers within a millisecond.
                    return self.enter(address, where, seconds=2)
                except Unavailable as reason:
                    reasons.append(str(reason))
        raise Unavailable("; ".join(dict.fromkeys(reasons)))

    def private_server(self, config: Config) -> Server:
        """Return a private server of the first installed programs that work."""
        if sys.platform == "win32":
            raise Unavailable("a private server listens on a socket: not for Windows")
        reasons = []
        server: Server
        for place in self.installed(config):
            try:
                programs = self.programs_at(place)
                server = self.private.find(programs, cache=config.cache)
            except Unavailable as reason:
                reasons.append(str(reason))
            else:
                return server
        raise Unavailable("; ".join(reasons) or "its programs are not installed")

    def usable_without_rights(self, server: Server, config: Config) -> Server | None:
        """Return a named server whose login may create no database, None if it is of no use."""
        del server, config
        return None

    def _named(self, config: Config) -> Server:
        try:
            address = self.read_url(config.server_url)
            return self.enter(address, f" on {address.server}, from arena_database")
        except CreatesNone as reason:
            server = self.usable_without_rights(reason.server, config)
            if server is not None:
                return server
            refused: Unavailable = reason
        except Unavailable as reason:
            refused = reason
        raise ServerError(
            f"the server for the tests cannot be used: {refused}",
            why=_WHY,
            cause=f"{redact_url(config.server_url)} from {config.place('database')}",
            fix=refused.fix or self.form,
        ) from refused


class CreatesNone(Unavailable):
    """The login may not create databases. ``server`` can be used without that right."""

    def __init__(self, server: Server, *, fix: str) -> None:
        user = server.address.user
        super().__init__(
            f"{user} on {server.address.server} may not create databases", fix=fix
        )
        self.server = server


def parse_url(text: str, names: set[str], shown: str) -> URL:
    """Parse the URL of a server of a product. ``names`` are names of its dialects."""
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - the command `arena` does without it
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - as above

    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise Unavailable(
            "the URL cannot be read. pytest-arena needs a URL of one server"
        ) from error
    if url.get_backend_name() not in names:
        raise Unavailable(f"{url.get_backend_name()} is not {shown}")
    return url


def port_of(variable: str, default: int) -> int:
    """Return the port in a variable, or the default."""
    text = os.environ.get(variable, "")
    return int(text) if text.isdigit() else default


def version_text(program: Path, *options: str) -> str:
    """Return what a program prints for ``--version``."""
    try:
        answer = subprocess.run(  # noqa: S603 - a program of the product, from the user's machine
            [program, *options, "--version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_VERSION_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{program} does not run: {error}") from error
    return answer.stdout


def usual_users(*users: str) -> Sequence[str]:
    """Return users of a server, with the user of the system before the last one."""
    return [*users[:-1], os_user(), users[-1]]
