"""The guard in a Python program that a test has started, such as a worker.

It leads connections to the tests' databases and to the tests' Redis, or refuses them. The program
may read the developer's URLs from a file such as ``.env``.
"""

from __future__ import annotations

import os
import sys
from functools import partial, wraps
from json import loads
from typing import TYPE_CHECKING, Any

from pytest_arena._config._supported import (
    DRIVERS,
    FILE_PRODUCTS,
    allows,
    birth,
    file_at_stake,
    reached,
)
from pytest_arena._interpreter import (
    PROGRAM,
    STARTS,
    guard_programs,
    on_audit_events,
    on_file_changes,
    patch,
    send_refusal,
    when_imported,
)
from pytest_arena._values import Address
from pytest_arena.errors import ProductionDatabaseError, UnknownDatabaseError

if TYPE_CHECKING:
    from pytest_arena._product import ConnectTarget, RequestedDatabase
    from pytest_arena.errors import RefusedError


def begin() -> None:
    """Watch the drivers until the program ends. Imports none of them."""
    facts = os.environ[PROGRAM]
    program = Program(loads(facts))
    when_imported("sqlite3", program.watch_files)
    when_imported("sqlalchemy", program.watch_engines)
    for package, product in DRIVERS.items():
        if product not in FILE_PRODUCTS:
            when_imported(package, partial(program.watch_driver, product))
    when_imported("redis", program.watch_redis)
    guard = partial(guard_programs, facts=facts, clients=lambda _path: program.clients)
    on_audit_events(dict.fromkeys(STARTS, lambda *values: guard(values[-1])))
    on_file_changes(program.check_change)


class Program:
    """Decides on connections, as ``Databases`` does in the run of pytest.

    Except that it also decides with ``arena_drivers = off``: here it cannot tell an engine's
    connection from a driver's.
    """

    drivers = "off"  # connections that stay as they are need no record

    def __init__(self, facts: Any) -> None:
        self._facts = facts
        self.clients: str = facts["clients"]
        self._addresses = {key: Address(*each) for key, each in facts["addresses"].items()}
        self._core: Any = self
        self.config = self.ledger = self._core

    def check_change(self, action: str, path: str) -> None:
        """Refuse to change a file of the app's databases that is older than the run."""
        file = file_at_stake(path, self._facts["began"], lambda: self._facts["files"])
        if file:
            raise self._refused(ProductionDatabaseError, file, action)

    def watch_driver(self, product: str, _module: object) -> None:
        """Watch a driver of a server."""
        from sqlalchemy import event  # noqa: PLC0415 - few programs connect
        from sqlalchemy.engine import Engine  # noqa: PLC0415 - as above

        from pytest_arena._product import connections_of  # noqa: PLC0415 - as above

        connections = connections_of(product)
        connections.watch(lambda: self._core)
        event.listen(Engine, "before_cursor_execute", partial(self._check, connections))

    def _check(
        self, connections: Any, connection: Any, _cursor: object, statement: str, *_: object
    ) -> None:
        """Refuse the statements of engines that the gate refuses in the run of pytest."""
        from pytest_arena._databases._refusals import beyond_database  # noqa: PLC0415 - as above
        from pytest_arena._product._statements import classify  # noqa: PLC0415 - as above

        meaning = classify(statement, connections.words)
        if meaning.beyond or meaning.shared:
            opened = connections.opened(connection.connection.driver_connection)
            if opened and not allows(self._facts["allow"], opened.name):
                raise self.refused(beyond_database(meaning, connections.words))

    def watch_redis(self, _module: object) -> None:
        """Let redis-py use the tests' Redis."""
        from pytest_arena._redis import Redis  # noqa: PLC0415 - as above

        Redis(self._core, self._facts["allow"], lambda: None, [], self._core).watch_clients()

    @property
    def port(self) -> int:
        """The port of the tests' Redis. A connection is refused if no test has used it."""
        port: int = self._facts["redis"]
        if not port:
            raise self._refused(UnknownDatabaseError, "redis://*")
        return port

    def admit(
        self, _opener: object, name: str, requested: RequestedDatabase
    ) -> ConnectTarget | None:
        """Return the target of a connection to a server, None if it stays as it is."""
        from pytest_arena._product import ConnectTarget, Key  # noqa: PLC0415 - as above

        address = self._addresses.get(f"{requested.product}/{requested.database}")
        if address is not None:
            return ConnectTarget(Key("server", name), "", (0, 0), address)
        is_live = any(each.database == requested.database for each in self._addresses.values())
        if is_live or allows(self._facts["allow"], name):
            return None
        raise self._refused(UnknownDatabaseError, name)

    def watch_engines(self, _module: object) -> None:
        """Watch the files of engines, which the test process need not have."""
        from sqlalchemy import event  # noqa: PLC0415 - as above
        from sqlalchemy.engine import Engine  # noqa: PLC0415 - as above

        event.listen(Engine, "do_connect", self._check_file)

    def _check_file(self, dialect: Any, _record: object, cargs: Any, _cparams: object) -> None:
        """Refuse a file older than the run, if no test database replaces it."""
        from pytest_arena._sqlite._sql import requested  # noqa: PLC0415 - as above

        if dialect.name not in FILE_PRODUCTS or not cargs:
            return
        path = os.path.realpath(requested(cargs[0]).file)
        is_known = reached(path, self._facts["files"]) or allows(self._facts["allow"], path)
        if not is_known and os.path.isfile(path) and birth(path) <= self._facts["began"]:  # noqa: PTH113 - as above
            raise self._refused(UnknownDatabaseError, path)

    def watch_files(self, module: Any) -> None:
        """Watch the connections of sqlite3, which aiosqlite uses, too."""
        connect = module.connect

        @wraps(connect)
        def redirected(database: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(database, str | bytes | os.PathLike):
                database = self._file(os.fsdecode(database), uri=bool(kwargs.get("uri")))
            connection = connect(database, *args, **kwargs)
            connection.setlimit(module.SQLITE_LIMIT_ATTACHED, 0)  # it may be the app's file
            return connection

        for each in (module, module.dbapi2):
            patch(each, "connect", redirected)
        on_audit_events({"sqlite3.connect": self._check_opened})

    def _check_opened(self, database: Any) -> None:
        """Refuse a file of the app that ``sqlite3.Connection`` opens itself."""
        if isinstance(database, str | bytes | os.PathLike):
            name = os.fsdecode(database)
            path = self._file(name, uri=name.startswith("file:"))
            if path != name:
                raise self._refused(ProductionDatabaseError, name)

    def _file(self, name: str, *, uri: bool) -> str:
        """Return the file to open in place of one of the app."""
        from pytest_arena._sqlite._sql import requested  # noqa: PLC0415 - as above

        path = requested(name, uri=uri).file
        live: str | None = (
            self._facts["files"].get(reached(path, self._facts["files"])) if path else None
        )
        if live is None:
            return name
        if not live:
            raise self._refused(ProductionDatabaseError, path)
        return live

    # What the guards also call.

    def level_owner(self) -> None:
        """Return that connections belong to the whole program."""

    def note(self, _fact: object) -> None:
        """Record nothing: the program ends before the database is restored."""

    opened_raw = note

    def refused(self, error: RefusedError) -> RefusedError:
        """Return an error that the test shows, too."""
        send_refusal(self._facts["refusals"], error)
        return error

    def _refused(
        self, kind: type[RefusedError], name: str, action: str = "a connection to"
    ) -> RefusedError:
        from pytest_arena._owner import cause_of_connection  # noqa: PLC0415 - as above

        error = kind(
            f"refused: {action} {name}, in: python {' '.join(sys.orig_argv[1:])}",
            why="a test or a conftest has started the program, and no test database replaces this",
            cause=cause_of_connection(),
            fix="let the test use the database first, and name the variable with its URL in "
            f"arena_env\nor, if tests may change it: arena_allow = {name}",
        )
        return self.refused(error)
