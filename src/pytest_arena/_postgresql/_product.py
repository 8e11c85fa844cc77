"""PostgreSQL in a run: where its server is found or started, its databases and isolations."""

from __future__ import annotations

import itertools
import os
import sys
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote

from pytest_arena._postgresql import FACTS
from pytest_arena._postgresql import _clusters as clusters
from pytest_arena._postgresql._control import open_control
from pytest_arena._postgresql._isolation import ServerIsolation
from pytest_arena._postgresql._journal import FIX_FOR_UNDO, why_no_undo
from pytest_arena._postgresql._roles import Roles
from pytest_arena._postgresql._rollback import Rollback
from pytest_arena._postgresql._server_registry import ServerRegistry
from pytest_arena._process import is_own_folder
from pytest_arena._product._own_databases import (
    Place,
    PlaceKind,
    SweepResult,
    Thing,
    time_of,
)
from pytest_arena._product._server_connections import is_here, os_user
from pytest_arena._product._server_search import (
    Server,
    ServerProduct,
    Unavailable,
    parse_url,
    port_of,
)
from pytest_arena._values import Address
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql._clusters import ServerFolder
    from pytest_arena._product import Database, Isolation, Usage

_STANDARD_PORT = 5432
_SOCKETS = ("/var/run/postgresql", "/tmp")  # noqa: S108 - the servers' default folders
# One row: the server's version, and the role's rights.
_LOGIN = """
SELECT split_part(current_setting('server_version'), ' ', 1), rolcreatedb OR rolsuper
FROM pg_catalog.pg_roles WHERE rolname = current_user
"""


def _socket_folders(port: int) -> list[str]:
    return [folder for folder in _SOCKETS if Path(folder, f".s.PGSQL.{port}").exists()]


@dataclass(frozen=True)
class PrivatePlaces:
    """All private servers. This class starts no server, and stops no server that a run uses."""

    cache: Path

    def places(self) -> Iterator[Place]:
        """Yield each server with its state."""
        for folder in self._folders():
            state = "stopped"
            if clusters.is_running(folder):
                state = "in use" if clusters.is_in_use(folder) else "idle"
            used = time_of(folder.beside("used"))
            thing = Thing(name=folder.path.name, what="server", state=state, time=used)
            shown = f"{clusters.title(folder)}, a private server"
            yield Place(shown=shown, where=str(folder.path), things=(thing,))

    def sweep(self, *, everything: bool) -> Iterator[SweepResult]:
        """Remove unused servers with ``everything``. A run sweeps the databases of its server."""
        for folder in self._folders() if everything else ():
            thing = Thing(name=folder.path.name, what="server")
            if clusters.is_in_use(folder):
                yield SweepResult(thing, "a private server that is in use")
            else:
                clusters.remove(folder)
                yield SweepResult(thing)

    def _folders(self) -> Iterator[ServerFolder]:
        """Yield the existing folders of this user's servers."""
        for parent in clusters.parents(self.cache):
            if parent.is_dir() and is_own_folder(parent):
                folders = [path for path in sorted(parent.iterdir()) if path.is_dir()]
                yield from map(clusters.ServerFolder, folders)


class PostgreSQL(ServerProduct[ServerRegistry]):
    """PostgreSQL in a run. The first connection finds or starts the server."""

    name = "postgresql"
    usual_driver = "psycopg"
    registry = ServerRegistry
    form = "ARENA_DATABASE=postgresql://user@host:5432/postgres pytest …"
    fix = "pip install 'pytest-arena[postgresql]'"
    oldest: ClassVar = {FACTS.shown: "13"}  # DROP DATABASE … WITH (FORCE)
    users: Roles  # created with the registry of the server

    def local_logins(self) -> Iterator[Address]:
        """Yield PGHOST, or the usual sockets and the loopback port, each with PGUSER and others."""
        port = port_of("PGPORT", _STANDARD_PORT)
        host = os.environ.get("PGHOST", "")
        places = [host] if host and is_here(host) else [*_socket_folders(port), "127.0.0.1"]
        users = filter(None, (os.environ.get("PGUSER"), os_user(), "postgres"))
        password = os.environ.get("PGPASSWORD", "")
        for place, user in itertools.product(places, dict.fromkeys(users)):
            yield Address(place, port, user, "postgres", password)

    def read_url(self, text: str) -> Address:
        """Read a URL of one server. PGPASSWORD replaces a missing password."""
        url = parse_url(text)
        options: dict[str, Any] = {
            "host": unquote(url.host or ""),
            "user": url.username,
            "password": url.password,
            **url.query,
        }
        port = int(url.port or _STANDARD_PORT)
        host = options["host"]
        if not isinstance(host, str) or "," in host:
            raise Unavailable("the URL names several hosts, and pytest-arena needs one")
        places = [host, *_socket_folders(port)]
        return Address(
            next(filter(None, places), "localhost"),
            port,
            options["user"] or os_user(),
            url.database or "postgres",
            options["password"] or os.environ.get("PGPASSWORD", ""),
        )

    def ask(self, address: Address, seconds: int) -> tuple[str, str, bool]:
        """Log in, and ask for the version and the rights."""
        with closing(open_control(address, seconds=seconds)) as control:
            [(version, may_create)] = control.rows(_LOGIN)
        return FACTS.shown, version, may_create

    def private_server(self) -> Server:
        """Return a private server of the first installed programs that work."""
        if sys.platform == "win32":
            raise Unavailable("a private server listens on a socket: not for Windows")
        reasons = []
        for folder in clusters.folders():
            try:
                return clusters.find(clusters.read_programs(folder), cache=self._config.cache)
            except Unavailable as reason:
                reasons.append(str(reason))
        raise Unavailable("; ".join(reasons) or "its programs are not installed")

    def place_kinds(self) -> list[PlaceKind]:
        """Return the named server, or the local service and the private servers."""
        kinds = super().place_kinds()
        if self.is_meant and not self._config.server_url and sys.platform != "win32":
            kinds.append(PrivatePlaces(self._config.cache))
        return kinds

    def _begin(self, registry: ServerRegistry, server: Server) -> None:
        self.users = Roles(self._core, registry, is_private=server.is_private)
        self.login_of = self.users.login_of

    def template_store(self) -> ServerRegistry:
        """Return the templates on the server."""
        registry = self._registry()
        self.users.prepare()
        return registry

    def isolate(self, database: Database, content: Any, uses: Usage) -> Isolation:
        """Return the isolation of a database: ``undo``, ``clone`` or ``rollback``."""
        registry = self._registry()
        note = self._core.ledger.note
        owner_script = self.users.begin(database)
        if self._config.isolation == "rollback":
            template = registry.derived(content, owner_script(content))
            with registry.reporting("no database for the first test"):
                live = registry.create("live", template=template)
            return Rollback(
                registry.address_of(live),
                self._core.ledger,
                self._config.lock_timeout,
                partial(registry.drop_later, live),
            )
        name = self._choose_isolation(registry)
        isolation = ServerIsolation(
            registry, content, name, owner_script=owner_script, uses=uses, note=note
        )
        self.users.note_inactive_rights(database.login, isolation.address)
        return isolation

    def _choose_isolation(self, registry: ServerRegistry) -> str:
        """Return undo, or clone if undo does not work here. The summary says why."""
        requested = self._config.isolation
        if requested == "clone":
            return "clone"
        reason = why_no_undo(registry)
        if not reason:
            return "undo"
        if requested == "undo":
            raise ConfigError(
                f"arena_isolation = undo: {reason}",
                why="the tests would run with another isolation than the option names",
                cause=self._config.place("isolation"),
                fix=f"{FIX_FOR_UNDO}\n"
                "or arena_isolation = auto   (clone, as long as undo does not work)",
            )
        self._core.ledger.note(
            f"{self.shown}: tests are isolated by clone, since {reason}. For undo: {FIX_FOR_UNDO}"
        )
        return "clone"

    def shell(self, where: str) -> list[str]:
        """Return the words of the command that opens a database."""
        return ["psql", where]


open_product = PostgreSQL


place_kinds = PostgreSQL.place_kinds_of
