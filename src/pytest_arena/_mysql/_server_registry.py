"""pytest-arena's databases on a MySQL or MariaDB server."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

import re
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.mysql.base import MySQLDialect

from pytest_arena._mysql import ASYNC_DRIVERS
from pytest_arena._mysql._clone import EMPTY_PLAN, LABEL, read_plan
from pytest_arena._mysql._control import (
    MySQLControl,
    MySQLFailure,
    connect,
    identifier,
    literal,
    open_control,
)
from pytest_arena._mysql._driver_guard import writers_in
from pytest_arena._process import until
from pytest_arena._product import Manifest, ScriptError, nothing, read_manifest
from pytest_arena._product._database_registry import DatabaseRegistry, ServerBuild
from pytest_arena._product._own_databases import OwnDatabase, now
from pytest_arena._values import ServerLogin, digest
from pytest_arena.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.engine import Dialect

    from pytest_arena._mysql._clone import CopyPlan
    from pytest_arena._product._server_control import Control
    from pytest_arena._values import Address

_HAS_TABLES = (
    "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = {} "
    "AND table_type NOT IN ('VIEW', 'SEQUENCE')"
)

_END_SECONDS = 10.0
_SLOTS = 64  # processes that hold a lock at the same time


@dataclass(frozen=True, slots=True)
class MySQLBuild(ServerBuild):
    """The database that a build fills with the app's drivers."""

    def run_script(self, script: str) -> None:
        """Run a script on a separate connection, so that the script's settings end with it."""
        with closing(open_control(self.address)) as control:
            control.run(
                "SET SESSION sql_mode = @@GLOBAL.sql_mode, SESSION foreign_key_checks = 1 "
                "/*M! , SESSION check_constraint_checks = 1 */"
            )
            try:
                control.run(script)
            except MySQLFailure as error:
                raise ScriptError(str(error), line=0, fix="") from error

    def has_tables(self) -> bool:
        """Return whether the database has a table."""
        question = _HAS_TABLES.format(literal(self.address.database))
        return self.registry.control.rows(question) != [(0,)]

    def is_being_written(self) -> bool:
        """Return whether a connection of this process has uncommitted rows in the database."""
        return bool(writers_in(self.address.database))


class MySQLRegistry(DatabaseRegistry):
    """The databases of a process on a MySQL or MariaDB server.

    A table of a template or a kept database has its label.
    """

    product = "mysql"
    question = (
        "SELECT SUBSTRING_INDEX(VERSION(), '.', 2), VERSION() LIKE '%MariaDB%', "
        "@@GLOBAL.character_set_server, @@GLOBAL.collation_server, @@GLOBAL.sql_mode, "
        "@@lower_case_table_names"
    )
    give_rights = (
        "GRANT ALL ON `arena\\_%`.* TO {user};   -- by an administrator\n"
        "GRANT PROCESS ON *.* TO {user};   -- for arena.races()\n"
        "Views of the app may need SUPER or SET USER"
    )
    another = "ARENA_DATABASE=mysql://root@host:3306/ pytest …   # another server"
    socket = "unix_socket"
    host_of_socket = "localhost"

    def __init__(self, address: Address, **options: Any) -> None:
        self._plans: dict[str, CopyPlan] = {}
        super().__init__(address, **options)

    # Connect and lock

    def _control(self, set_up: Callable[[Control], object] = nothing) -> Control:
        return MySQLControl(partial(connect, self._address), set_up)

    def _hold(self, control: Control, name: str) -> None:
        for number in range(_SLOTS):
            lock = literal(_slot(name, number))
            if control.rows(f"SELECT GET_LOCK({lock}, 0)") == [(1,)]:
                return

    def _release(self, control: Control) -> None:
        control.run("DO RELEASE_ALL_LOCKS()")

    def _acquire(self, control: Control, name: str, seconds: float) -> bool:
        lock = literal(f"arena.{name}"[:64])
        return bool(control.rows(f"SELECT GET_LOCK({lock}, {seconds})") == [(1,)])

    def _held(self, control: Control, names: Iterable[str]) -> set[str]:
        questions = []
        for name in names:
            users = [f"IS_USED_LOCK({literal(_slot(name, number))})" for number in range(_SLOTS)]
            questions.append(f"SELECT {literal(name)}, COALESCE({', '.join(users)})")
        rows = control.rows(" UNION ALL ".join(questions)) if questions else []
        return {name for name, session in rows if session is not None}

    # Read and write

    def _describe(self, control: Control) -> list[OwnDatabase]:
        names = [name for (name,) in control.rows("SHOW DATABASES LIKE 'arena\\_%'")]
        labelled = control.rows(
            "SELECT table_schema FROM information_schema.tables "
            f"WHERE table_name = '{LABEL}' AND table_schema LIKE 'arena\\_%'"
        )
        labels = {name: self._text_of(control, name) for (name,) in labelled}
        return [OwnDatabase(name=name, manifest=read_manifest(labels.get(name))) for name in names]

    def _text_of(self, control: Control, name: str) -> str | None:
        try:
            rows = control.rows(f"SELECT label FROM {identifier(name)}.{LABEL}")
        except MySQLFailure as error:
            if error.is_lost:
                raise
            return None  # it does not exist, or is not finished
        return rows[0][0] if rows else None

    def _write_text(self, name: str, text: str) -> None:
        place = f"{identifier(name)}.{LABEL}"
        self.control.run(
            f"CREATE TABLE IF NOT EXISTS {place} (id INT PRIMARY KEY, label LONGTEXT) "
            "ENGINE = InnoDB CHARACTER SET utf8mb4; "
            f"REPLACE INTO {place} VALUES (1, {literal(text)})"
        )

    # Build

    def ddl_dialect(self) -> Dialect:
        """Return a dialect that knows what changes DDL, as after a connection."""
        _, _, is_mariadb, *_ = self.identity().split(" ")
        dialect = MySQLDialect()
        if is_mariadb == "1":
            vars(dialect).update(supports_sequences=True, supports_native_uuid=True)
        return dialect

    @cached_property
    def app_login(self) -> ServerLogin:
        """The login of the app's connections, whichever login the app has."""
        with self.reporting("the server's settings cannot be read"):
            return self.control.call(app_login, self._address)

    def _build(self, address: Address, dialect: type[Dialect]) -> MySQLBuild:
        driver = dialect.driver
        if not dialect.is_async:
            driver = next(filter(find_spec, ASYNC_DRIVERS), ASYNC_DRIVERS[0])
        url = partial(self.url_of, address.as_(self.app_login), dialect.name)
        # PyMySQL converts values like the async drivers.
        return MySQLBuild(self, address.as_(self.app_login), url("pymysql"), url(driver))

    # Copy

    def _copy(self, control: Control, source: str | None, name: str) -> None:
        control.call(self.plan_of(source).run, name)

    def plan_of(self, name: str | None) -> CopyPlan:
        """Return the plan of a database that never changes, or of an empty database (None)."""
        if name is None:
            return EMPTY_PLAN
        if name not in self._plans:
            self._plans[name] = self.control.call(read_plan, name)
        return self._plans[name]

    def copy_now(self, kind: str, source: str) -> str:
        """Copy a database that may change later."""
        try:
            return self.create(kind, template=source)
        finally:
            self._plans.pop(source, None)

    def _finish(self, name: str, final: str, text: str) -> None:
        """Copy the database, because a database cannot be renamed."""
        self._plans.pop(final, None)
        self._copy(self.control, name, final)
        self._write_text(final, text)
        self.drop_later(name)

    def keep(self, name: str, title: str) -> None:
        """Keep a database for inspection. The newest twenty kept databases stay."""
        with self.reporting(f"{name} cannot be kept"):
            self._write_text(name, Manifest(now(), title).text())
        self.databases.discard(name)

    # Drop

    def _drop_now(self, control: Control, name: str) -> None:
        self._plans.pop(name, None)
        # An open transaction would block the drop.
        self.end_sessions(f"db = {literal(name)}", control)
        control.run(f"DROP DATABASE IF EXISTS {identifier(name)}")

    def end_sessions(self, where: str, control: Control) -> None:
        """End sessions. A session keeps its locks until it has rolled back, so wait for it."""
        question = (
            f"SELECT id FROM information_schema.processlist WHERE {where} AND id <> CONNECTION_ID()"
        )
        for (pid,) in control.rows(question):
            with suppress(MySQLFailure):  # the session has ended
                control.run(f"KILL {pid}")
        until(lambda: not control.rows(question), within=_END_SECONDS)


def _slot(name: str, number: int) -> str:
    """Return the name of a lock. The server has no shared locks, so each holder has a slot."""
    return f"{name}.{number}" if number else name


# The user for all connections of the app: it has rights on pytest-arena's databases only. The
# server refuses what such a connection sends to another database or to the whole server.

_LONGEST_NAME = 32  # on MySQL
_REFUSED_LOGIN = (1045, 1698)
_NO_RIGHT = 1227
_PLACE = r"`arena\_%`.*"
# Rights to end the sessions of another user.
_END_SESSIONS = {"CONNECTION ADMIN", "CONNECTION_ADMIN", "SUPER"}
# Grants that reach no row of another database. MariaDB has databases named test for all users.
_HARMLESS = re.compile(
    r"GRANT (?:(?:USAGE|PROCESS|SHOW DATABASES|CREATE USER|SET USER|CONNECTION[ _]ADMIN)(?:, )?)+ "
    r"ON \*\.\* TO |GRANT .+ ON `arena\\?_[^`]*`\.\S+ TO |.* TO `?PUBLIC`?$"
)


def app_login(control: Control, address: Address) -> ServerLogin:
    """Return the login of the app's connections. Create it if it does not exist.

    It stays on the server, because views of a template belong to it. If pytest-arena's login
    has rights on pytest-arena's databases only, it is also the app's.

    Raises:
        ServerError: the login has more rights, and may not create a user.
        MySQLFailure: the server does not answer, or has no free connection.
    """
    if all(_HARMLESS.match(line) for (line,) in control.rows("SHOW GRANTS")):
        return ServerLogin(address.user, address.password)
    # The same in each run, known to those who know the password. Password plugins require letters,
    # digits and other characters.
    secret = digest(f"{address.user} {address.password}")[:24]
    login = ServerLogin(f"arena_app_{address.user}"[:_LONGEST_NAME], f"aA1!{secret}")
    [(host,)] = control.rows("SELECT SUBSTRING_INDEX(USER(), '@', -1)")
    # An anonymous user of this machine has precedence over a user of any machine.
    place = "localhost" if host == "localhost" else "%"
    account = f"{literal(login.user)}@{literal(place)}"
    password = literal(login.password)
    create = f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY {password}"
    grant = f"GRANT ALL ON {_PLACE} TO {account}"
    try:
        _check_rights(control)
        if not _is_usable(address.as_(login)):
            control.run(create)
            control.run(f"ALTER USER {account} IDENTIFIED BY {password}")
            control.run(grant)
    except MySQLFailure as error:
        if error.is_lost or error.is_crowded:
            raise
        raise ServerError(
            f"{address.server}: no user for the app's connections: {error.first_line}",
            why=f"{address.user} has rights on databases that are not pytest-arena's, and the app "
            "must not reach them",
            cause=f"{address.user} lacks CREATE USER, PROCESS, CONNECTION ADMIN, or the right to "
            "grant",
            fix=f"{create};\n{grant};   -- as an administrator\n"
            f"and GRANT PROCESS, CONNECTION ADMIN ON *.* TO {address.user};   -- to end sessions",
        ) from error
    return login


def _is_usable(address: Address) -> bool:
    """Return whether the user can log in and has its rights."""
    try:
        with closing(open_control(replace(address, database=""))) as control:
            return any(_PLACE in line for (line,) in control.rows("SHOW GRANTS"))
    except MySQLFailure as error:
        if error.code not in _REFUSED_LOGIN:
            raise
        return False


def _check_rights(control: Control) -> None:
    """Check the rights to see and to end the sessions of another user."""
    rows = control.rows(
        "SELECT privilege_type FROM information_schema.user_privileges "
        "WHERE REPLACE(grantee, '''', '') = CURRENT_USER()"
    )
    rights = {str(right) for (right,) in rows}
    if "PROCESS" not in rights or not rights & _END_SESSIONS:
        raise MySQLFailure("PROCESS or CONNECTION ADMIN is missing", _NO_RIGHT)
