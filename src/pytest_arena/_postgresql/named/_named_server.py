"""A server on which the role may create no databases, with the one database that tests use."""

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
from pytest_arena._postgresql.named._mark import read_state
from pytest_arena._postgresql.registry import ServerRegistry
from pytest_arena._postgresql.registry._connection import Writes
from pytest_arena._postgresql.registry._registry_run import TURNS
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
_MOST_NAMES = 3  # in the note
_WORKERS = "PYTEST_XDIST_WORKER_COUNT"


class BuildLost(RowsLost):
    """The shared connection has ended, and with it what was built and never committed."""

    def __init__(self, cause: str) -> None:
        IsolationError.__init__(
            self,
            "the schema and the rows of all tests are lost: the shared connection has ended",
            why="they were never committed, so that no test of this run can begin any more",
            cause=f"a test has ended the connection, or the server has restarted\n{cause}",
            fix="pytest …   # once more",
        )


class NamedServer(ServerRegistry):
    """The database that ``arena_database`` names, in which tests share one transaction.

    No transaction commits there. There is no registry, and no other database. An advisory lock
    excludes other runs, because numbers of sequences are not a part of a transaction.

    Raises:
        ConfigError: an option or the workers of pytest-xdist do not fit.
        ServerError: the database is neither empty nor marked, or another run uses it.
    """

    def __init__(  # the base class would create the registry
        self, server: Server, config: Config, tell: Callable[[str], None]
    ) -> None:
        self._address = server.address
        self._tell = tell
        self._process = os.getpid()
        self._is_closed = False
        self._taken_by: Database | None = None
        self._transaction: Proxy | None = None
        self.lock_timeout = config.lock_timeout
        self.writes = Writes()
        self.cause = (
            f"role {self._address.user} may not create databases, and "
            f"{redact_url(config.server_url)} is in {config.places['database']}"
        )
        self._check_options(config)
        self.control = ControlLine(self._connect, patience=self._address.patience)
        with self.saying(f"tests cannot use the database {self.name}"):
            self._check_database()
            self._tell_of_sequences()
            self._restoring = self._restoring_sequences()

    @property
    def name(self) -> str:
        """The name of the database."""
        return self._address.database

    @property
    def _where(self) -> str:
        return f"the database {self.name} on {self._address.server}"

    def address_of(self, name: str = "") -> Address:
        """Return the address of the database, past the shared transaction."""
        del name
        return self._address

    # Consent

    def _check_options(self, config: Config) -> None:
        number = os.environ.get(_WORKERS, "1")
        if number != "1":
            raise ConfigError(
                f"{number} workers of pytest-xdist cannot share {self._where}",
                why="each worker needs a transaction, and would wait for the locks of the others",
                cause=self.cause,
                fix=f"pytest -n 0 …\nor {self._give_right()}",
            )
        option = ""
        if config.drivers == "off":
            option = "drivers"
        if any(map(self._is_allowed_by, config.allow)):
            option = "allow"
        if option:
            raise ConfigError(
                f"arena_{option} lets connections reach {self._where} directly",
                why="they would commit there, and tests share one transaction that never commits",
                cause=f"{config.places[option]}\n{self.cause}",
                fix=f"remove the value from arena_{option}, or {self._give_right()}",
            )

    def _is_allowed_by(self, pattern: str) -> bool:
        """Return whether a pattern may name the database, by any name of its host."""
        is_of_server = pattern.startswith(("postgres", "*"))
        _, _, database = pattern.rpartition("/")
        return is_of_server and fnmatch(self.name, database)

    def _check_database(self) -> None:
        state = self.control.call(read_state)
        if state.refusal:
            problem = state.refusal
        elif not state.is_empty and not state.is_marked:
            problem = "it is not empty, and has no mark"
        else:
            self.has_schema = not state.is_empty
            self._tell_of_database()
            return
        raise ServerError(
            f"tests cannot use {self._where}: {problem}",
            why="tests lock its tables and move its sequences, which other users would notice",
            cause=self.cause,
            fix=f"an empty database in arena_database, or {self._give_right()}\n"
            "or, for a test database: arena databases mark postgresql://owner@host/name",
        )

    def _tell_of_database(self) -> None:
        role = self._address.user
        note = f"tests use {self._where} itself, since role {role} may not create databases"
        if self.has_schema:
            note += ". It is not empty, so that arena_schema is not built"
        self._tell(f"rollback: {note}")

    def _tell_of_sequences(self) -> None:
        names = [name for (name,) in self.control.rows(_SEQUENCES_WITHOUT_RIGHTS)]
        if not names:
            return
        shown = ", ".join(names[:_MOST_NAMES])
        if len(names) > _MOST_NAMES:
            shown += f" and {len(names) - _MOST_NAMES} more"
        role = self._address.user
        self._tell(
            f"rollback: sequences keep the numbers that tests take, since role {role} may not set "
            f"them: {shown}. Next: GRANT SELECT, UPDATE ON SEQUENCE {names[0]} TO "
            f"{identifier(role)}"
        )

    def _give_right(self) -> str:
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
                raise self._is_used(control) from error
        return control

    def _is_used(self, control: Control) -> ServerError:
        holders = ", ".join(str(holder) for (holder,) in control.rows(_HOLDER))
        return ServerError(
            f"another run uses {self._where}: {holders}",
            why="numbers of sequences are not a part of a transaction, so that runs would "
            "change each other's",
            cause=self.cause,
            fix="wait until the other run has ended, or use a database for each run",
        )

    # The transaction

    def transaction(self) -> Proxy:
        """Return the transaction that tests share. Begin it at the first call, or if it is lost.

        Raises:
            BuildLost: it is lost, and had what was built.
        """
        lost = self.build_lost()
        if lost is not None:
            raise lost
        if self._transaction is not None and self._transaction.is_lost:
            self.end_transaction()
        if self._transaction is None:
            with self.saying("the shared connection cannot be opened"):
                self._transaction = open_proxy(
                    self._address, note=self._tell, lock_timeout=self.lock_timeout
                )
        return self._transaction

    def build_lost(self) -> BuildLost | None:
        """Return the error if the transaction is lost, and had what was built."""
        lost = self._transaction
        if lost is None or not lost.is_lost or not lost.has_changes(below=1):
            return None
        return BuildLost(self.cause)

    def end_transaction(self) -> None:
        """Roll back all that the run has written. A fork leaves that to its parent."""
        if self._transaction is None or self._process != os.getpid():
            return
        self._transaction.close()
        self._transaction = None
        with self.saying("sequences cannot be restored"):
            # Where no level has restored them.
            if self._restoring:
                self.control.rows(self._restoring)

    def take(self, database: Database | None = None) -> None:
        """Note which database of the app is in the named database.

        Without a database, only check that none is there.

        Raises:
            ConfigError: another one is there.
        """
        if self._taken_by not in {None, database}:
            raise ConfigError(
                f"the app uses more than one database, and {self._where} is only one",
                why="each database of the app has its own tables and rows",
                cause=self.cause,
                fix=self._give_right(),
            )
        self._taken_by = database

    def _restoring_sequences(self) -> str:
        """Return the statement that restores the sequences which the role may set."""
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
        """Return the error for what needs a second database."""
        return IsolationError(
            f"another database is needed beside {self._where}",
            why="with rollback there, only one database and one transaction exist",
            cause=self.cause,
            fix=self._give_right(),
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
