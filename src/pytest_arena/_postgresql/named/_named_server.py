"""A server whose role may not create databases, and the database on it that tests use."""

# ruff: noqa: S608 - the numbers are constants

from __future__ import annotations

import os
from contextlib import closing, suppress
from fnmatch import fnmatch
from typing import TYPE_CHECKING, NoReturn

from pytest_arena._postgresql._control import (
    ControlFailure,
    ControlLine,
    identifier,
    open_control,
)
from pytest_arena._postgresql.isolation._rolled_back import open_proxy
from pytest_arena._postgresql.isolation._snapshots import RowsLost
from pytest_arena._postgresql.named._database_state import read_state
from pytest_arena._postgresql.registry import TURNS, ServerRegistry
from pytest_arena._postgresql.registry._connection import Writes
from pytest_arena._postgresql.rollback._backend import RESTORING, SEQUENCES
from pytest_arena.errors import (
    ArenaError,
    ConfigError,
    IsolationError,
    ServerError,
    redact_url,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._config._read import Config
    from pytest_arena._postgresql._control import Control
    from pytest_arena._postgresql.rollback._proxy import Proxy
    from pytest_arena._product import Database
    from pytest_arena._product.servers import Server
    from pytest_arena._values import Address

RUN_LOCK = f"{TURNS}, 2"
_HOLDER = f"""
SELECT concat_ws(' ', 'process', l.pid, a.usename, a.client_addr)
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
AND (l.classid, l.objid) = ({RUN_LOCK})
AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
"""
# The sequences that the role may not read or set.
_SEQUENCES_WITHOUT_RIGHTS = """
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't'
AND CASE WHEN c.relkind = 'S' THEN has_schema_privilege(n.oid, 'USAGE') AND NOT (
    has_sequence_privilege(c.oid, 'SELECT') AND has_sequence_privilege(c.oid, 'UPDATE')) END
ORDER BY 1
"""
_MOST_NAMES = 3  # the most sequences that the note names
_WORKERS = "PYTEST_XDIST_WORKER_COUNT"


class BuildLost(RowsLost):
    """The shared connection has ended, and the uncommitted schema and seed are lost."""

    def __init__(self, cause: str) -> None:
        IsolationError.__init__(
            self,
            "the schema and the rows of all tests are lost: the shared connection has ended",
            why="pytest-arena never commits them, so that no test of this run can begin",
            cause=f"a test has ended the connection, or the server has restarted\n{cause}",
            fix="pytest …   # again",
        )


class NamedServer(ServerRegistry):
    """The database that ``arena_database`` names, in which tests share one transaction.

    No transaction commits in it. There is no registry and no other database. An advisory lock
    excludes other runs, because values of sequences are not part of a transaction.

    Raises:
        ConfigError: an option, or several workers of pytest-xdist, cannot be used with it.
        ServerError: the database is neither empty nor named for tests, or another run uses it.
    """

    def __init__(  # the base class would create the registry
        self, server: Server, config: Config, note: Callable[[str], None]
    ) -> None:
        self._address = server.address
        self._note = note
        self._process = os.getpid()
        self._is_closed = False
        self._taken_by: Database | None = None
        self._transaction: Proxy | None = None
        self.lock_timeout = config.lock_timeout
        self.writes = Writes()
        self.cause = (
            f"role {self._address.user} may not create databases, and "
            f"{redact_url(config.server_url)} is from arena_database"
        )
        self._check_options(config)
        self.control = ControlLine(self._connect, patience=self._address.patience)
        with self.reporting(f"tests cannot use the database {self.name}"):
            self._check_database()
            self._note_sequences_without_rights()
            self._sequences_statement = self._write_sequences_statement()

    @property
    def name(self) -> str:
        """The name of the database."""
        return self._address.database

    @property
    def _where(self) -> str:
        return f"the database {self.name} on {self._address.server}"

    def address_of(self, name: str = "") -> Address:
        """Return the address of the database itself, not of the proxy."""
        del name
        return self._address

    # Consent

    def _check_options(self, config: Config) -> None:
        number = os.environ.get(_WORKERS, "1")
        if number != "1":
            raise ConfigError(
                f"{number} workers of pytest-xdist cannot share {self._where}",
                why="each worker needs a transaction, and would wait for locks of other workers",
                cause=self.cause,
                fix=f"pytest -n 0 …\nor {self._grant_createdb()}",
            )
        option = ""
        if config.drivers == "off":
            option = "drivers"
        if any(map(self._is_allowed_by, config.allow)):
            option = "allow"
        if option:
            raise ConfigError(
                f"arena_{option} lets connections reach {self._where} directly",
                why="such connections would commit, but the tests' one transaction never commits",
                cause=f"{config.place(option)}\n{self.cause}",
                fix=f"remove the value from arena_{option}, or {self._grant_createdb()}",
            )

    def _is_allowed_by(self, pattern: str) -> bool:
        """Return whether a pattern may name the database, by any name of its host."""
        is_of_server = pattern.startswith(("postgres", "*"))
        _, _, database = pattern.rpartition("/")
        return is_of_server and fnmatch(self.name, database)

    def _check_database(self) -> None:
        state = self.control.call(read_state)
        if state.refusal:
            raise ServerError(
                f"tests cannot use {self._where}: {state.refusal}",
                why="tests lock its tables and move its sequences, which other users would notice",
                cause=self.cause,
                fix="an empty database in arena_database, or one named like shop_test\n"
                f"or {self._grant_createdb()}",
            )
        self.has_schema = not state.is_empty
        self._note_database()

    def _note_database(self) -> None:
        role = self._address.user
        note = f"tests use {self._where} itself, since role {role} may not create databases"
        if self.has_schema:
            note += ". It is not empty, so that arena_schema is not built"
        self._note(f"rollback: {note}")

    def _note_sequences_without_rights(self) -> None:
        names = [name for (name,) in self.control.rows(_SEQUENCES_WITHOUT_RIGHTS)]
        if not names:
            return
        shown = ", ".join(names[:_MOST_NAMES])
        if len(names) > _MOST_NAMES:
            shown += f" and {len(names) - _MOST_NAMES} more"
        role = self._address.user
        self._note(
            f"rollback: sequences stay where tests have moved them, since role {role} may not set "
            f"them: {shown}. Next: GRANT SELECT, UPDATE ON SEQUENCE {names[0]} TO "
            f"{identifier(role)}"
        )

    def _grant_createdb(self) -> str:
        return f"ALTER ROLE {identifier(self._address.user)} CREATEDB"

    def _connect(self) -> Control:
        control = open_control(self._address)
        if self._process != os.getpid():
            return control  # a forked child only reads
        patience = max(1, round(self._address.patience * 1000))
        try:
            control.run(f"SET lock_timeout = {patience}")
            control.rows(f"SELECT pg_advisory_lock({RUN_LOCK})")
            control.run("SET lock_timeout = 0")
        except ControlFailure as error:
            with closing(control):
                if error.sqlstate != "55P03":
                    raise
                raise self._used_by_other_run(control) from error
        return control

    def _used_by_other_run(self, control: Control) -> ServerError:
        holders = ", ".join(str(holder) for (holder,) in control.rows(_HOLDER))
        return ServerError(
            f"another run uses {self._where}: {holders}",
            why="values of sequences are not part of a transaction, so two runs would change each "
            "other's values",
            cause=self.cause,
            fix="wait until the other run has ended, or use a database for each run",
        )

    # The transaction

    def transaction(self) -> Proxy:
        """Return the transaction that tests share. Begin it at the first call, or if it is lost.

        Raises:
            BuildLost: it is lost, with the schema and the seed.
        """
        lost = self.build_lost()
        if lost is not None:
            raise lost
        if self._transaction is not None and self._transaction.is_lost:
            self.end_transaction()
        if self._transaction is None:
            with self.reporting("the shared connection cannot be opened"):
                self._transaction = open_proxy(
                    self._address, note=self._note, lock_timeout=self.lock_timeout
                )
        return self._transaction

    def build_lost(self) -> BuildLost | None:
        """Return an error if the transaction is lost, with the schema and the seed."""
        lost = self._transaction
        if lost is None or not lost.is_lost or not lost.has_changes(below=1):
            return None
        return BuildLost(self.cause)

    def end_transaction(self) -> None:
        """Roll back all writes of the run. A forked child does nothing."""
        if self._transaction is None or self._process != os.getpid():
            return
        self._transaction.close()
        self._transaction = None
        with self.reporting("sequences cannot be restored"):
            # No level restores sequences that the build has moved.
            if self._sequences_statement:
                self.control.rows(self._sequences_statement)

    def take(self, database: Database | None = None) -> None:
        """Assign the named database to a database of the app.

        Without ``database``, only check that it is not assigned.

        Raises:
            ConfigError: it is assigned to another database of the app.
        """
        if self._taken_by not in {None, database}:
            raise ConfigError(
                f"the app uses more than one database, and {self._where} is only one",
                why="each database of the app has its own tables and rows",
                cause=self.cause,
                fix=self._grant_createdb(),
            )
        self._taken_by = database

    def _write_sequences_statement(self) -> str:
        """Return the statement that restores the sequences that the role may set."""
        [(sequences,)] = self.control.rows(SEQUENCES)
        if not sequences:
            return ""
        [(statement,)] = self.control.rows(RESTORING.format(sequences))
        return str(statement)

    # Rights that the role lacks

    def create(self, kind: str, *, template: str | None = None) -> NoReturn:
        """Raise an IsolationError: the role may create no database."""
        del kind, template
        raise self.not_copied()

    def freeze(self, name: str) -> NoReturn:
        """Raise an IsolationError: the database is not pytest-arena's."""
        del name
        raise self.not_copied()

    def drop_later(self, name: str) -> None:
        """Do nothing: the database is not pytest-arena's."""

    def not_copied(self) -> IsolationError:
        """Return the error for an operation that needs a second database."""
        return IsolationError(
            f"another database is needed beside {self._where}",
            why="with rollback in this database, tests have only one database and one transaction",
            cause=self.cause,
            fix=self._grant_createdb(),
        )

    def close(self) -> int:
        """Roll back, restore the sequences, and disconnect. Return 0: no database is left."""
        if self._is_closed or self._process != os.getpid():
            return 0
        self._is_closed = True
        with suppress(ArenaError):  # the server does not answer
            self.end_transaction()
        self.control.close()
        return 0
